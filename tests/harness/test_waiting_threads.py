"""OMP_WAIT_POLICY is PASSIVE before torch is imported, by whichever way prunecheck is started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "OMP_WAIT_POLICY"
# A finder sees every import that begins: when that is torch, the value is written to stderr.
SPY = f"""
import os, sys

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.write(2, ("torch imported: " + os.environ.get("{NAME}", "unset") + "\\n").encode())

sys.meta_path.insert(0, Spy())
"""


def said(folder: Path, *command: str, **variables: str) -> str:
    """Run a command in a folder whose `sitecustomize` spies on the import of torch; return what it wrote to stderr."""
    (folder / "sitecustomize.py").write_text(SPY)
    environment = {name: value for name, value in os.environ.items() if name != NAME and "PYTEST" not in name}
    environment |= {"PYTHONPATH": str(folder), **variables}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return result.stderr + result.stdout


def test_the_command(tmp_path: Path) -> None:
    """The command sets it."""
    command = shutil.which("prunecheck", path=str(Path(sys.executable).parent))
    assert command is not None
    (tmp_path / "empty").mkdir()
    assert "torch imported: PASSIVE" in said(tmp_path, command, "check", str(tmp_path / "empty"))


def test_a_value_of_the_user_s_stays(tmp_path: Path) -> None:
    """A value that the user has set stays."""
    program = "import harness; harness.check_checkpoint"
    assert "torch imported: active" in said(tmp_path, sys.executable, "-c", program, OMP_WAIT_POLICY="active")


def test_functions(tmp_path: Path) -> None:
    """`import harness` sets it, and processes that are started inherit it."""
    child = f"import os; print('inherited:', os.environ['{NAME}'])"
    program = f"import harness, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert "inherited: PASSIVE" in said(tmp_path, sys.executable, "-c", program)


@pytest.mark.parametrize("arguments", [("--pyargs", "harness.suite", "--pruned"), ("--prunecheck-pruned",)])
def test_the_plugin(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """pytest with a checkpoint to judge sets it, in the suite and in tests of one's own."""
    (tmp_path / "test_own.py").write_text("import torch\ndef test_own():\n    pass\n")
    (tmp_path / "empty").mkdir()
    command = (sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *arguments, str(tmp_path / "empty"))
    assert "torch imported: PASSIVE" in said(tmp_path, *command)
