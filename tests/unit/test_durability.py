"""What is on the disk when: files, their directory, the rename, and the directory that holds both."""

import os
from pathlib import Path

import pytest

from pruning import PrunePlan, prune_checkpoint
from tests.unit.checkpoints import write_checkpoint

PLAN = PrunePlan(mlp=(0,))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return what is synced and renamed while a test runs, in turn."""
    seen: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        seen.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        seen.append(("rename", str(target)))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    return seen


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_synced_before_the_rename(tmp_path: Path, events: list[tuple[str, str]], overwrite: bool) -> None:
    """Every file is synced, then their directory, then the renames are made, then the directory that holds them."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    (source / "tokenizer.json").write_text("{}")
    if overwrite:
        prune_checkpoint(source, tmp_path / "out", PrunePlan())
        events.clear()
    prune_checkpoint(source, tmp_path / "out", PLAN, overwrite=overwrite)
    staged, out = tmp_path / ".out.prunecheck-new", tmp_path / "out"
    first = next(number for number, (kind, _) in enumerate(events) if kind == "rename")
    synced = [name for kind, name in events[:first] if kind == "sync"]
    assert {f"{staged}/{name}" for name in os.listdir(out)} <= set(synced)
    assert synced[-1] == str(staged)
    renames = [("rename", f"{tmp_path}/.out.prunecheck-old")] if overwrite else []
    removal = [("rename", f"{tmp_path}/.out.prunecheck-removed")] if overwrite else []
    assert events[first:] == [*renames, ("rename", str(out)), ("sync", str(tmp_path)), *removal]


def test_without_sync(tmp_path: Path, events: list[tuple[str, str]]) -> None:
    """Without sync nothing is waited for."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "out", PLAN, sync=False)
    assert [kind for kind, _ in events] == ["rename"]
