"""Run the command line in this process."""

import sys
from pathlib import Path

import pytest

from harness.cli import main as cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run `prunecheck` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["prunecheck", *map(str, arguments)])
    monkeypatch.setattr(cli, "exit_at_signals", lambda: None)  # the handlers would outlive the test
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code
