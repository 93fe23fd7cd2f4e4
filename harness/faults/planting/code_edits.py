"""Plant by editing the text of a checkpoint's modeling file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.errors import CannotRun
from harness.faults.fault import Plant

from .checkpoint_files import Json, copy_checkpoint, edit_config
from .modeling_files import FOREIGN_FILE, foreign_checkpoint

Edit = tuple[str, str]  # a text that occurs once, and what takes its place


def replace_once(text: str, edits: tuple[Edit, ...]) -> str:
    """Return the text with each edit made; raises CannotRun where its first half does not occur exactly once."""
    for old, new in edits:
        if text.count(old) != 1:
            raise CannotRun(
                f"the modeling file holds {old!r} {text.count(old)} times, but should once: another fault may have "
                "changed it, or another version of prunecheck written it"
            )
        text = text.replace(old, new)
    return text


def edit_file(path: Path, edits: tuple[Edit, ...]) -> None:
    """Make the edits in a file; raises CannotRun as `replace_once`."""
    path.write_text(replace_once(path.read_text(encoding="utf-8"), edits), encoding="utf-8")


def edit_foreign(*edits: Edit, config: Callable[[Json], None] | None = None) -> Plant:
    """Plant by editing the foreign modeling file, after the checkpoint was made foreign, and maybe its config."""

    def plant(checkpoint: Path, destination: Path) -> None:
        foreign_checkpoint(checkpoint, destination)
        edit_file(destination / FOREIGN_FILE, edits)
        if config is not None:
            edit_config(destination, config)

    return plant


def edit_own(edits: Mapping[str, tuple[Edit, ...]]) -> Plant:
    """Plant by editing Python files that `prunecheck prune` wrote, by their names."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        for name, changes in edits.items():
            edit_file(destination / name, changes)

    return plant
