"""Twins of the real checkpoint: the same function with other numbers in the files, for what depends on those."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.real_checkpoint.llama_to_qwen3 import QUERY_KEY_SCALE, STREAM_SCALE

_LOUD = 2.0**6
_UNSCALED_QUERY_KEY_SCALE = 2.0**24  # what T must be where S is 1 (`llama_to_qwen3`)


def underflowing(base: Path, directory: Path) -> Path:
    """Write the real checkpoint as `llama_to_qwen3` converts it with S = 1 and T = 2**24: the same in float32."""
    return _rescaled(base, directory, _unscaled())


def loud(base: Path, directory: Path) -> Path:
    """Write `underflowing` with layer norms 64 times as large, and what reads them 64 times as small.

    Powers of two round nothing, so every logit stays as it is. But whatever takes the place of trained weights, random
    numbers or nothing at all, hears a louder voice: the norms' weights are 15 in place of 0.25.
    """
    scales = _unscaled()
    query_key = scales.pop(("q_proj.weight", "k_proj.weight"))
    scales |= {
        ("input_layernorm.weight", "post_attention_layernorm.weight"): _LOUD,
        ("q_proj.weight", "k_proj.weight"): query_key / _LOUD,
        ("v_proj.weight", "gate_proj.weight", "up_proj.weight"): 1 / _LOUD,
    }
    return _rescaled(base, directory, scales)


def behind_an_empty_layer(base: Path, directory: Path) -> Path:
    """Write the real checkpoint with one more layer in front, whose sub-layers add zeros.

    Without its first attention, any real model is ruined; without this one, it is what it was.
    """

    def change(tensors: dict[str, Tensor]) -> None:
        moved = {_one_layer_further(key): tensor for key, tensor in tensors.items()}
        first = {key: tensor for key, tensor in tensors.items() if key.startswith("model.layers.0.")}
        for key, tensor in first.items():
            moved[key] = (
                torch.zeros_like(tensor) if key.endswith(("o_proj.weight", "down_proj.weight")) else tensor.clone()
            )
        tensors.clear()
        tensors.update(moved)

    def change_config(config: dict[str, Any]) -> None:
        config["num_hidden_layers"] += 1
        config["max_window_layers"] = config["num_hidden_layers"]

    return _write(base, directory, change, change_config)


def _one_layer_further(key: str) -> str:
    return re.sub(r"(?<=^model\.layers\.)\d+", lambda match: str(int(match[0]) + 1), key)


def _unscaled() -> dict[tuple[str, ...], float]:
    stream, query_key = STREAM_SCALE, QUERY_KEY_SCALE / _UNSCALED_QUERY_KEY_SCALE
    return {
        ("embed_tokens.weight", "o_proj.weight", "down_proj.weight"): 1 / stream,
        ("model.norm.weight",): stream,
        ("q_proj.weight", "k_proj.weight"): query_key,
        ("q_norm.weight", "k_norm.weight"): 1 / (stream * query_key),
    }


def _rescaled(base: Path, directory: Path, scales: Mapping[tuple[str, ...], float]) -> Path:
    """Write `base` with the tensors whose names end so scaled, and the epsilon of an unscaled stream."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            for endings, scale in scales.items():
                if name.endswith(endings):
                    tensors[name] = tensors[name] * scale

    def change_config(config: dict[str, Any]) -> None:
        config["rms_norm_eps"] /= STREAM_SCALE**2

    return _write(base, directory, change, change_config)


def _write(
    base: Path,
    directory: Path,
    change: Callable[[dict[str, Tensor]], None],
    change_config: Callable[[dict[str, Any]], None],
) -> Path:
    """Write `base` into one file, changed."""
    shutil.copytree(base, directory, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    config = json.loads((base / "config.json").read_text())
    change_config(config)
    (directory / "config.json").write_text(json.dumps(config))
    tensors = {key: tensor for path in sorted(base.glob("*.safetensors")) for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory
