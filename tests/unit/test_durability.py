"""What is on the disk when: files, their directory, the rename, and the directory that holds both."""

import os
from pathlib import Path

import pytest

from pruning import PrunePlan, prune_checkpoint
from pruning.writing import staging
from pruning.writing.exchange import exchange
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

    def noted_exchange(first: Path, second: Path) -> bool:
        seen.append(("exchange", str(second)))
        return exchange(first, second)

    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(staging, "exchange", noted_exchange)
    return seen


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_synced_before_the_rename(tmp_path: Path, events: list[tuple[str, str]], overwrite: bool) -> None:
    """Every file is synced, then their directory, then it takes its place, then the directory that holds it."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    (source / "tokenizer.json").write_text("{}")
    if overwrite:
        prune_checkpoint(source, tmp_path / "out", PrunePlan())
        events.clear()
    prune_checkpoint(source, tmp_path / "out", PLAN, overwrite=overwrite)
    out = tmp_path / "out"
    *synced, (how, where), last = events
    staged = Path(synced[-1][1])
    assert {("sync", f"{staged}/{name}") for name in os.listdir(out)} <= set(synced)
    assert (how, where) == ("exchange" if overwrite else "rename", str(out))
    assert last == ("sync", str(tmp_path))


def test_without_sync(tmp_path: Path, events: list[tuple[str, str]]) -> None:
    """Without sync nothing is waited for."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "out", PLAN, sync=False)
    assert [kind for kind, _ in events] == ["rename"]
