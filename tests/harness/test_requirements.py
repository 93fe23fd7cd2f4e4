"""A library of a release that prunecheck does not support is refused before it can be blamed on a checkpoint."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.system import requirements
from harness.system.requirements import require_libraries

Pair = tuple[Path, Path]


def older_transformers(folder: Path, version: str = "4.50.0") -> Path:
    """Write a package `transformers` of another version, which may be found but not imported; return its folder."""
    (folder / "transformers").mkdir()
    (folder / "transformers" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    metadata = folder / f"transformers-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n")
    return folder


def test_what_is_installed_is_supported() -> None:
    """The libraries that the tests run with are supported."""
    require_libraries()


@pytest.mark.parametrize("command", ["check", "demo", "bench", "scan", "plan", "doctor", "plant"])
def test_an_older_transformers(command: str, tmp_path: Path, tiny_checkpoints: Callable[..., Pair]) -> None:
    """Under an older transformers a command ends with 2 and one line, which names it and how to replace it."""
    base, pruned = map(str, tiny_checkpoints())
    arguments = {
        "check": [pruned], "bench": [pruned, "--base", base], "scan": [base, "--out", "scan"],
        "plan": [base, "--drop", "1"], "plant": ["--list"],
    }.get(command, [])  # fmt: skip
    program = (
        f"import sys; from harness.cli.main import main; sys.argv = ['prunecheck', *{[command, *arguments]!r}]; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(older_transformers(tmp_path))}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("prunecheck: transformers 4.50.0 is installed, but prunecheck needs transformers")
    assert "-m pip install" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_suite_under_an_older_transformers(tmp_path: Path, tiny_checkpoints: Callable[..., Pair]) -> None:
    """The pytest suite says it in one line, too, and collects nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "--pyargs", "harness.suite", f"--pruned={tiny_checkpoints()[1]}"]
    environment |= {"PYTHONPATH": str(older_transformers(tmp_path))}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 4
    assert "transformers 4.50.0 is installed, but prunecheck needs transformers" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout


def test_an_absent_library_is_left_to_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirement that is not installed, or that another system needs, is not refused here; a wrong release is."""
    lines = ["no-such-package>=3", "pytest<1; sys_platform == 'moon'", "pytest<1; extra == 'moon'"]
    monkeypatch.setattr(requirements, "requires", lambda _: lines)
    require_libraries()
    monkeypatch.setattr(requirements, "requires", lambda _: [*lines, "pytest<1"])
    with pytest.raises(CannotRun, match=r"^pytest \S+ is installed, but prunecheck needs pytest<1: \S+ -m pip install"):
        require_libraries()
