"""Compare stored tensors byte for byte, with the safetensors library alone: independent of how `pruning` writes."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open


def stored_keys(checkpoint: Path) -> dict[str, Path]:
    """Return the file that holds each stored key of a checkpoint directory, all `*.safetensors` files read."""
    keys: dict[str, Path] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with _open(path) as file:
            keys.update(dict.fromkeys(file.keys(), path))
    return keys


def kept_keys(keys: Collection[str], self_attn: Collection[int], mlp: Collection[int]) -> set[str]:
    """Return the keys that should be left when the given layers' sub-layers are pruned."""
    prefixes = [f"model.layers.{layer_idx}.self_attn." for layer_idx in self_attn]
    prefixes += [f"model.layers.{layer_idx}.mlp." for layer_idx in mlp]
    return {key for key in keys if not key.startswith(tuple(prefixes))}


def differing_tensor(pruned: Path, base: Path, self_attn: Collection[int], mlp: Collection[int]) -> str | None:
    """Return what is wrong with the first stored tensor that is not what it should be, None if all are right."""
    base_files, pruned_files = stored_keys(base), stored_keys(pruned)
    expected = kept_keys(base_files, self_attn, mlp)
    for key in sorted(expected ^ set(pruned_files)):
        return f"{key} is missing" if key in expected else f"{key} is stored, but should not be"
    for path in sorted(set(pruned_files.values())):
        with _open(path) as file:
            for key in file.keys():  # noqa: SIM118  # a safetensors file, not a dict
                with _open(base_files[key]) as base_file:
                    if not _same_bytes(file.get_tensor(key), base_file.get_tensor(key)):
                        return f"{key} differs from the base's"
    return None


def _open(path: Path) -> Any:
    return safe_open(path, framework="pt")


def _same_bytes(left: Any, right: Any) -> bool:
    import torch

    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))
    )
