"""Faults in `model.safetensors.index.json`, or between it and the shards."""

from __future__ import annotations

from pathlib import Path

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import INDEX, Json, copy_checkpoint, edit_json, weight_files
from harness.faults.planting.conditions import several_shards


def _forget_a_shard(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    forgotten = weight_files(destination)[-1].name

    def change(index: Json) -> None:
        index["weight_map"] = {key: name for key, name in index["weight_map"].items() if name != forgotten}

    edit_json(destination / INDEX, change)


def _delete_a_shard(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    weight_files(destination)[-1].unlink()


def _swap_two_shards(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    first, second = (path.name for path in weight_files(destination)[:2])
    other = {first: second, second: first}

    def change(index: Json) -> None:
        index["weight_map"] = {key: other.get(name, name) for key, name in index["weight_map"].items()}

    edit_json(destination / INDEX, change)


FAULTS = (
    Fault(
        id="shard-not-in-index",
        family="files",
        where="index",
        symptom="first",
        description="the index does not name the tensors of the last shard, so they load with random values",
        requires=several_shards,
        plant=_forget_a_shard,
    ),
    Fault(
        id="shard-missing",
        family="files",
        where="index",
        symptom="error",
        description="the last shard, which the index names, is not there",
        requires=several_shards,
        plant=_delete_a_shard,
    ),
    Fault(
        id="swapped-weight-map",
        family="offload",
        where="index",
        symptom="error",
        description="the index exchanges the names of the first two shards, which only disk offload minds",
        requires=several_shards,
        plant=_swap_two_shards,
    ),
)
