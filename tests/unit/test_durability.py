"""What is on the disk when: files, their directory, the rename, and the directory that holds both."""

import os
from pathlib import Path
from typing import Any

import pytest

from pruning import PrunePlan, prune_checkpoint
from pruning.writing import byte_copy
from tests.unit.checkpoints import keys_of_model, write_checkpoint, write_weights

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


@pytest.mark.parametrize("checksum", [True, False])
def test_every_write_is_followed_by_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksum: bool) -> None:
    """Whichever thread writes to a shard, and in whatever order, a sync of it begins when that is done."""
    last: dict[str, str] = {}

    def noted_write(function: Any, argument: int) -> Any:
        def write(*args: Any, **kwargs: Any) -> int:
            name, count = os.readlink(f"/proc/self/fd/{args[argument]}"), function(*args, **kwargs)
            last[name] = "write"
            return int(count)

        return write

    def noted_sync(descriptor: int) -> None:
        last[os.readlink(f"/proc/self/fd/{descriptor}")] = "sync"

    monkeypatch.setattr(os, "pwrite", noted_write(os.pwrite, 0))
    monkeypatch.setattr(os, "copy_file_range", noted_write(os.copy_file_range, 1))
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(byte_copy, "_SHARE_BYTES", 1)  # so that each shard has several
    prune_checkpoint(write_checkpoint(tmp_path / "source", shards=3), tmp_path / "out", PLAN, checksum=checksum)
    shards = {name: kind for name, kind in last.items() if name.endswith(".safetensors")}
    assert shards == {
        str(tmp_path / f".out.prunecheck-new/model-{n:05d}-of-00003.safetensors"): "sync" for n in (1, 2, 3)
    }


@pytest.mark.parametrize("checksum", [True, False])
def test_a_shard_without_tensors_is_synced(tmp_path: Path, events: list[tuple[str, str]], checksum: bool) -> None:
    """Of a shard that a plan empties a header is left, which is on the disk, too."""
    source = write_checkpoint(tmp_path / "source")
    write_weights(source, {key: ("BF16", [2, 3]) for key in keys_of_model(3) if ".0.mlp." in key})
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert ("sync", f"{tmp_path}/.out.prunecheck-new/model.safetensors") in events
