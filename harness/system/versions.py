"""What is installed, told without importing it; None for what is not."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = (
    "prunecheck", "torch", "transformers", "accelerate", "safetensors", "tokenizers", "huggingface-hub", "bitsandbytes",
    "peft",
)  # fmt: skip


def installed_versions() -> dict[str, str | None]:
    """Return the version of each package that a loaded model rests on."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
