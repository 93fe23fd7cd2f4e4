"""Why pip failed, in one line."""

import platform
import sys
from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.releases.pip_runs import reason, run_pip
from tests.harness.releases.packages import Index

pytestmark = pytest.mark.newest

UNKNOWN = """\
ERROR: Could not find a version that satisfies the requirement fakepkg==9 (from versions: 1.0, 1.1)
ERROR: No matching distribution found for fakepkg==9
"""
OTHER_PYTHON = (
    "ERROR: Ignored the following versions that require a different python version: "
    "8.0 Requires-Python <3; 9 Requires-Python >=4\n"
)
CONFLICT = """\
ERROR: Cannot install a==1 and b==2 because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested b==2
    a 1 depends on b<2

To fix this you could try to:
ERROR: ResolutionImpossible: for help visit somewhere
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (UNKNOWN, "Could not find a version that satisfies the requirement fakepkg==9"),
        (
            OTHER_PYTHON + UNKNOWN,
            "Could not find a version that satisfies the requirement fakepkg==9: it needs Python >=4, "
            f"and this is {platform.python_version()}",
        ),
        (
            OTHER_PYTHON.replace("; 9 ", "; 10 ") + UNKNOWN,
            "Could not find a version that satisfies the requirement fakepkg==9",
        ),
        (
            "WARNING: Retrying after connection broken by 'x': /simple/fakepkg/\n" + UNKNOWN,
            "the package index cannot be reached: "
            "Could not find a version that satisfies the requirement fakepkg==9",
        ),
        (
            CONFLICT,
            "Cannot install a==1 and b==2 because these package versions have conflicting dependencies: "
            "The user requested b==2; a 1 depends on b<2",
        ),
        ("Traceback\nValueError: what it met last\n", "ValueError: what it met last"),
        ("", "pip said nothing"),
    ],
)  # fmt: skip
def test_the_reason(output: str, said: str) -> None:
    """Of what pip prints, one line tells what could not be done, and why."""
    assert reason(output) == said


def test_no_network(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that cannot be reached is told as such."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(CannotRun, match=r"^the package index cannot be reached: "):
        run_pip("install", "--dry-run", "fakepkg==1")


def test_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without pip is named, with the command that brings it."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(CannotRun) as caught:
        run_pip("--version")
    assert str(caught.value) == f"{bare} has no pip, which installs the packages: run {bare} -m ensurepip"
