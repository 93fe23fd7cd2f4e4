"""The tutorial is true, and how to choose a plan. Apart from the other pages, so that both processors run commands."""

from pathlib import Path

from docs_tests.commands import CHOOSING, TUTORIAL, run_commands


def test_commands_that_choose_a_plan_run(tmp_path: Path, real_checkpoint: Path) -> None:
    """Every command of the page on choosing a plan runs, from SRC alone."""
    (tmp_path / "SRC").symlink_to(real_checkpoint)
    assert (
        len(run_commands(CHOOSING.read_text(encoding="utf-8"), tmp_path)) >= 3
    )  # a pattern that finds nothing would pass


def test_commands_run(tmp_path: Path, real_checkpoint: Path) -> None:
    """Every command and piece of Python of the tutorial runs, from SRC alone, and prints the lines that are shown."""
    (tmp_path / "SRC").symlink_to(real_checkpoint)
    assert len(run_commands(TUTORIAL.read_text(encoding="utf-8"), tmp_path)) >= 10
