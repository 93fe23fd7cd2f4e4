"""The files of a checkpoint directory, read and edited for planting: config, plan, tensors, index.

Whole shards are held in memory. The plan is read and written in the words of whichever code the checkpoint carries:
`per_layer_config` (ours) or `skip_attention` and `skip_mlp` (the foreign one).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = "config.json"
MANIFEST = "pruning.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

Json = dict[str, Any]
Plan = tuple[set[int], set[int]]  # layer indexes: whose self_attn, whose mlp

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # safetensors' names


def copy_checkpoint(checkpoint: Path, destination: Path) -> None:
    """Copy a checkpoint directory, following links, without compiled Python files."""
    shutil.copytree(checkpoint, destination, ignore=shutil.ignore_patterns("__pycache__"))


def read_json(path: Path) -> Json:
    """Read a JSON object."""
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def edit_json(path: Path, change: Callable[[Json], None]) -> None:
    """Rewrite a JSON file after `change` changed its content in place."""
    content = read_json(path)
    change(content)
    write_json(path, content)


def config_of(checkpoint: Path) -> Json:
    """Return the content of `config.json`."""
    return read_json(checkpoint / CONFIG)


def edit_config(checkpoint: Path, change: Callable[[Json], None]) -> None:
    """Rewrite `config.json` after `change` changed its content in place."""
    edit_json(checkpoint / CONFIG, change)


def plan_of(config: Json) -> Plan:
    """Return which layers' self_attn and mlp the config of a pruned checkpoint skips."""
    if "skip_attention" in config:
        return set(config["skip_attention"]), set(config["skip_mlp"])
    skipped = {int(key): value.get("skip", ()) for key, value in (config.get("per_layer_config") or {}).items()}
    return (
        {index for index, words in skipped.items() if "attention" in words},
        {index for index, words in skipped.items() if "mlp" in words},
    )


def set_plan(config: Json, self_attn: Iterable[int], mlp: Iterable[int]) -> None:
    """Make the config skip these layers' self_attn and mlp, and no others."""
    attentions, mlps = set(self_attn), set(mlp)
    if "skip_attention" in config:
        config.update(skip_attention=sorted(attentions), skip_mlp=sorted(mlps))
        return
    per_layer_config = {
        str(index): {"skip": [word for word, skipped in (("attention", attentions), ("mlp", mlps)) if index in skipped]}
        for index in sorted(attentions | mlps)
    }
    config.pop("per_layer_config", None)
    if per_layer_config:
        config["per_layer_config"] = per_layer_config


def weight_files(checkpoint: Path) -> list[Path]:
    """Return the safetensors files in the order of their names."""
    return sorted(checkpoint.glob("*.safetensors"))


def stored_keys(checkpoint: Path) -> set[str]:
    """Return the keys of all tensors that are stored."""
    keys: set[str] = set()
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as file:
            keys.update(file.keys())
    return keys


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Rewrite every shard after `change` changed its tensors in place, and the index, if any, to agree."""
    weight_map: dict[str, str] = {}
    total_size = 0
    for path in weight_files(checkpoint):
        tensors = load_file(path)
        change(tensors)
        save_tensors(tensors, path)
        weight_map.update(dict.fromkeys(tensors, path.name))
        total_size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if (checkpoint / INDEX).exists():
        write_json(checkpoint / INDEX, {"metadata": {"total_size": total_size}, "weight_map": weight_map})


def all_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Return every stored tensor by key."""
    return {key: tensor for path in weight_files(checkpoint) for key, tensor in load_file(path).items()}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file as transformers does."""
    path.unlink(missing_ok=True)  # the tensors may be mapped from it
    save_file(tensors, path, metadata={"format": "pt"})


def drop_keys(checkpoint: Path, dropped: Callable[[str], bool]) -> None:
    """Remove every tensor whose key is to be dropped, from the shards and the index."""

    def change(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if dropped(key)]:
            del tensors[key]

    edit_tensors(checkpoint, change)


def pruned_tensors(checkpoint: Path, seed: int = 0) -> dict[str, Tensor]:
    """Return random values for every tensor that the manifest says was pruned, in its shape and dtype.

    They are drawn as transformers initialises: normal with the config's `initializer_range`, norms ones.
    """
    deviation = float(config_of(checkpoint).get("initializer_range", 0.02))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, entry in read_json(checkpoint / MANIFEST)["pruned"].items():
        if key.endswith("norm.weight"):
            tensor = torch.ones(entry["shape"])
        else:
            tensor = deviation * torch.randn(entry["shape"], generator=generator)
        tensors[key] = tensor.to(_DTYPES[entry["dtype"]])
    return tensors
