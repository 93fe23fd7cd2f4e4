"""The ways of loading a model that the demo compares, each with the arguments of `from_pretrained` it stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig


@dataclass(frozen=True)
class LoadingMode:
    """One way of loading; `precision` is its column in the table of tolerances, `needs` a package it wants."""

    name: str
    precision: str
    arguments: Callable[[int, Path], dict[str, Any]]
    needs: str | None = None

    @property
    def missing(self) -> str | None:
        """Why it cannot run here, None if it can."""
        if self.needs is None or find_spec(self.needs) is not None:
            return None
        return f"{self.needs} is not installed"


def disk_offload_map(num_hidden_layers: int) -> dict[str, str]:
    """Return a device map that leaves the second half of the decoder layers on the disk."""
    device_map = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
    for layer_idx in range(num_hidden_layers):
        device_map[f"model.layers.{layer_idx}"] = "cpu" if layer_idx < num_hidden_layers // 2 else "disk"
    return device_map


LOADING_MODES = (
    LoadingMode("plain", "float32", lambda layers, folder: {"dtype": torch.float32}),
    LoadingMode("bfloat16", "bfloat16", lambda layers, folder: {"dtype": torch.bfloat16}),
    LoadingMode("auto", "float32", lambda layers, folder: {"dtype": torch.float32, "device_map": "auto"}),
    LoadingMode(
        "disk offload",
        "float32",
        lambda layers, folder: {
            "dtype": torch.float32,
            "device_map": disk_offload_map(layers),
            "offload_folder": folder,
        },
    ),
    LoadingMode(
        "8-bit",
        "8bit",
        lambda layers, folder: {
            "dtype": torch.bfloat16,
            "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
        },
        needs="bitsandbytes",
    ),
    LoadingMode(
        "4-bit",
        "4bit",
        lambda layers, folder: {
            "dtype": torch.bfloat16,
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
            ),
        },
        needs="bitsandbytes",
    ),
)
