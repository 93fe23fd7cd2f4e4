"""The tutorial is true. Apart from the other pages, and behind them, so that both processors run commands."""

from pathlib import Path

from docs_tests.commands import TUTORIAL, run_commands


def test_commands_run(tmp_path: Path, real_checkpoint: Path) -> None:
    """Every command and piece of Python of the tutorial runs, from SRC alone, and prints the lines that are shown."""
    (tmp_path / "SRC").symlink_to(real_checkpoint)
    assert run_commands([TUTORIAL], tmp_path) >= 10  # a pattern that finds nothing would pass
