"""Faults in the safetensors files: keys lost, kept, renamed, files cut off or left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from harness.faults.fault import Fault, Plant
from harness.faults.planting.checkpoint_files import (
    SINGLE,
    all_tensors,
    config_of,
    copy_checkpoint,
    drop_keys,
    edit_tensors,
    plan_of,
    pruned_tensors,
    save_tensors,
    weight_files,
)
from harness.faults.planting.conditions import (
    all_of,
    kept_attention,
    manifest,
    several_shards,
    something_pruned,
    untied,
)

# The form of a Git LFS pointer (git-lfs, docs/spec.md); the object that it names is made up.
_LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 63}1\nsize 1234567890\n"


def _drop(dropped: Callable[[str], bool]) -> Plant:
    """Plant by removing keys from a copy."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        drop_keys(destination, dropped)

    return plant


def _prefix(prefix: str) -> Plant:
    """Plant by putting a prefix before every key of a copy."""

    def change(tensors: dict[str, Tensor]) -> None:
        renamed = {f"{prefix}{key}": tensor for key, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        edit_tensors(destination, change)

    return plant


def _pruned_prefixes(checkpoint: Path) -> tuple[str, ...]:
    """Return the keys' prefixes of the pruned sub-layers, without the final dot."""
    self_attn, mlp = plan_of(config_of(checkpoint))
    return tuple(
        [f"model.layers.{index}.self_attn" for index in sorted(self_attn)]
        + [f"model.layers.{index}.mlp" for index in sorted(mlp)]
    )


def _matched_too_much(checkpoint: Path) -> Callable[[str], bool]:
    """Match keys as a pruner does that compares `layers.1` without the dot after it, then the sub-layer's name."""
    pruned = [prefix.rsplit(".", 1) for prefix in _pruned_prefixes(checkpoint)]
    return lambda key: any(key.startswith(layer) and f".{sublayer}." in key for layer, sublayer in pruned)


def _lose_layers_with_longer_numbers(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    drop_keys(destination, _matched_too_much(checkpoint))


def _longer_numbers(checkpoint: Path) -> str | None:
    """Require a pruned layer whose number begins that of a layer that keeps the same sub-layer."""
    config = config_of(checkpoint)
    for indexes in plan_of(config):
        kept = [str(index) for index in range(config["num_hidden_layers"]) if index not in indexes]
        if any(number.startswith(str(index)) for index in indexes for number in kept):
            return None
    return f"{checkpoint} has no pruned layer i beside a kept one whose number begins with i, as 1 beside 10"


def keep_pruned_keys(checkpoint: Path, destination: Path) -> None:
    """Write a copy whose first shard holds what was pruned, too: random values, since the originals are gone."""
    copy_checkpoint(checkpoint, destination)
    pending = [pruned_tensors(checkpoint)]

    def change(tensors: dict[str, Tensor]) -> None:
        if pending:
            tensors.update(pending.pop())

    edit_tensors(destination, change)


def _cut_off(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    path = weight_files(destination)[-1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _point_to_lfs(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    weight_files(destination)[-1].write_text(_LFS_POINTER, encoding="utf-8")


def _leave_stale_single_file(checkpoint: Path, destination: Path) -> None:
    """Write `model.safetensors` beside the shards: the same keys at an earlier state of training."""
    copy_checkpoint(checkpoint, destination)
    generator = torch.Generator().manual_seed(0)
    stale = {}
    for key, tensor in all_tensors(checkpoint).items():
        spread = float(tensor.float().abs().mean())
        noise = spread * torch.randn(tensor.shape, generator=generator)
        stale[key] = (tensor.float() + noise).to(tensor.dtype)
    save_tensors(stale, destination / SINGLE)


FAULTS = (
    Fault(
        id="kept-keys-lost",
        family="keys",
        where="weights",
        symptom="first or drift",
        met="arcee-ai/mergekit#602",
        description="q_norm and k_norm of every kept self_attn are not stored, so they load as ones",
        requires=kept_attention,
        plant=_drop(lambda key: key.endswith((".q_norm.weight", ".k_norm.weight"))),
    ),
    Fault(
        id="kept-keys-lost:longer-numbers",
        family="keys",
        where="weights",
        symptom="first or drift",
        met="arcee-ai/mergekit#602",
        description="the pattern that pruned layer 1 matched layers 10 to 19, too, whose sub-layer is not stored",
        requires=_longer_numbers,
        plant=_lose_layers_with_longer_numbers,
    ),
    Fault(
        id="pruned-keys-kept",
        family="keys",
        where="weights",
        symptom="memory",
        description="the weights of every pruned sub-layer are still stored; config.json skips them as it should",
        requires=all_of(something_pruned, manifest),
        plant=keep_pruned_keys,
    ),
    Fault(
        id="wrapper-prefix",
        family="keys",
        where="weights",
        symptom="first",
        description="every key begins with _orig_mod., as in the state dict of a compiled model",
        plant=_prefix("_orig_mod."),
    ),
    Fault(
        id="wrapper-prefix:adapter",
        family="keys",
        where="weights",
        symptom="first",
        description="every key begins with base_model.model., as in the state dict of a model with adapters",
        plant=_prefix("base_model.model."),
    ),
    Fault(
        id="lm-head-lost",
        family="tied-head",
        where="weights",
        symptom="first",
        description="the head of an untied model is not stored, so it loads with random weights",
        requires=untied,
        plant=_drop(lambda key: key == "lm_head.weight"),
    ),
    Fault(
        id="truncated-file",
        family="files",
        where="weights",
        symptom="error",
        met="huggingface/transformers#27923",
        description="the last file of weights ends after two thirds of its bytes",
        plant=_cut_off,
    ),
    Fault(
        id="truncated-file:lfs-pointer",
        family="files",
        where="weights",
        symptom="error",
        met="huggingface/transformers#27923",
        description="a Git LFS pointer stands in place of the last file of weights",
        plant=_point_to_lfs,
    ),
    Fault(
        id="stale-single-file",
        family="files",
        where="weights",
        symptom="first",
        description="an old model.safetensors lies beside the shards, and transformers prefers it",
        requires=several_shards,
        plant=_leave_stale_single_file,
    ),
)
