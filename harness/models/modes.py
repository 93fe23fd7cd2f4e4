"""The ways of loading a model that are judged: one table of places and precisions.

| place | what it adds | float32, bfloat16 | 8-bit, 4-bit |
|---|---|---|---|
| plain | no device map | yes | yes |
| auto | accelerate's hooks; every GPU there is, else the CPU | yes | yes |
| disk-beside | the layers next to pruned ones on the disk | yes | refused by transformers |
| disk-inside | the parts of pruned layers apart, on the CPU and on the disk | yes | refused by transformers |
| disk-all | every layer on the disk; tried where nothing else fits into memory | yes | refused by transformers |
| gpu | everything on the first GPU | where there is one | where there is one |
| gpus | layers dealt to all GPUs | where there are several | where there are several |

bitsandbytes does not quantise what lies on the disk: transformers refuses such a load, or, with
`llm_int8_enable_fp32_cpu_offload`, leaves those layers as they are (transformers 4.57.6 and 5.23.0,
`quantizers/quantizer_bnb_8bit.py`, `validate_environment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from transformers import BitsAndBytesConfig

from harness.errors import CannotRun
from pruning import PrunePlan

PLACES: Final = ("plain", "auto", "disk-beside", "disk-inside", "gpu", "gpus")
DTYPES: Final = ("float32", "bfloat16")
QUANTISATIONS: Final = ("8bit", "4bit")

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


@dataclass(frozen=True)
class LoadingMode:
    """One way of loading: where the weights lie, and `precision`, its column in the table of tolerances."""

    place: str
    precision: str

    @property
    def name(self) -> str:
        """How checks and reports name it, such as `plain-float32`."""
        return f"{self.place}-{self.precision}"

    @property
    def is_quantised(self) -> bool:
        """Whether bitsandbytes converts linear modules."""
        return self.precision in QUANTISATIONS

    @property
    def is_offloaded(self) -> bool:
        """Whether weights stay on the disk."""
        return self.place.startswith("disk")

    @property
    def missing(self) -> str | None:
        """Why it cannot run on this machine, None if it can."""
        if self.is_quantised and find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed"
        if self.is_quantised and self.is_offloaded:
            return "bitsandbytes does not quantise what lies on the disk"
        gpus = torch.cuda.device_count()
        if self.place in ("gpu", "gpus") and gpus < (wanted := 1 if self.place == "gpu" else 2):
            return f"this machine has {gpus} GPU(s), and it needs {wanted}"
        return None

    def arguments(self, num_hidden_layers: int, plan: PrunePlan, offload_folder: Path) -> dict[str, Any]:
        """Return the keyword arguments of `from_pretrained` that it stands for; the folder is for offloaded weights."""
        arguments: dict[str, Any] = {"dtype": getattr(torch, self.precision, torch.bfloat16)}
        if self.is_quantised:
            arguments["quantization_config"] = _quantisation(self.precision)
        if self.place == "auto":
            arguments["device_map"] = "auto"
        elif self.place == "gpu":
            arguments["device_map"] = {"": 0}
        elif self.place == "gpus":
            arguments["device_map"] = _dealt_map(num_hidden_layers, torch.cuda.device_count())
        elif self.is_offloaded:
            build = {"disk-beside": _beside_map, "disk-inside": _inside_map, "disk-all": _whole_map}[self.place]
            arguments |= {"device_map": build(num_hidden_layers, plan), "offload_folder": offload_folder}
        return arguments


def loading_modes(
    places: Sequence[str] = PLACES,
    dtypes: Sequence[str] = DTYPES,
    quantisations: Sequence[str] = QUANTISATIONS,
) -> Iterator[LoadingMode]:
    """Yield the modes of the table, row by row, plain float32 first.

    Raises CannotRun for a name that is not in the table.
    """
    for name, chosen, known in (
        ("device-map", places, PLACES),
        ("dtype", dtypes, DTYPES),
        ("quantisation", quantisations, QUANTISATIONS),
    ):
        for value in chosen:
            if value not in (*known, *(("disk-all",) if name == "device-map" else ())):
                raise CannotRun(f"--{name} {value} is unknown: choose among {', '.join(known)}")
    for place in (place for place in (*PLACES, "disk-all") if place in places):
        for precision in (*DTYPES, *QUANTISATIONS):
            if precision in dtypes or precision in quantisations:
                yield LoadingMode(place, precision)


def given_arguments(model: Any, folder: Path) -> dict[str, Any]:
    """Return the arguments that load a reference the way a model that is there was loaded."""
    arguments: dict[str, Any] = {"dtype": getattr(model, "dtype", torch.float32)}
    quantisation = getattr(model.config, "quantization_config", None)
    if quantisation is not None:
        arguments["quantization_config"] = quantisation
    device_map = getattr(model, "hf_device_map", None)
    if device_map:
        arguments["device_map"] = dict(device_map)
        if "disk" in device_map.values():
            arguments["offload_folder"] = folder
    elif (device := next(model.parameters()).device).type not in ("cpu", "meta"):
        arguments["device_map"] = {"": device}
    return arguments


def _quantisation(precision: str) -> BitsAndBytesConfig:
    if precision == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _map(num_hidden_layers: int) -> dict[str, Any]:
    names = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head")
    layers = (f"model.layers.{layer_idx}" for layer_idx in range(num_hidden_layers))
    return dict.fromkeys((*names, *layers), "cpu")


def _whole_map(num_hidden_layers: int, plan: PrunePlan) -> dict[str, Any]:
    return {name: "disk" if ".layers." in name else "cpu" for name in _map(num_hidden_layers)}


def _beside_map(num_hidden_layers: int, plan: PrunePlan) -> dict[str, Any]:
    """Return a device map that has the neighbours of pruned layers on the disk: all but these, if none is pruned."""
    touched = {*plan.self_attn, *plan.mlp}
    beside = {layer_idx + step for layer_idx in touched for step in (-1, 1)} - touched
    beside = {layer_idx for layer_idx in beside if 0 <= layer_idx < num_hidden_layers}
    device_map = _map(num_hidden_layers)
    # Where no neighbour is left, the pruned layers themselves go, with whatever they keep.
    for layer_idx in beside or set(range(num_hidden_layers // 2, num_hidden_layers)):
        device_map[f"model.layers.{layer_idx}"] = "disk"
    return device_map


def _inside_map(num_hidden_layers: int, plan: PrunePlan) -> dict[str, Any]:
    """Return a device map that takes pruned layers apart: norms and one sub-layer on the CPU, the other on the disk."""
    device_map = _map(num_hidden_layers)
    for layer_idx in sorted({*plan.self_attn, *plan.mlp}) or [num_hidden_layers - 1]:
        del device_map[f"model.layers.{layer_idx}"]
        on_disk = "self_attn" if layer_idx % 2 else "mlp"
        for part in _PARTS:
            device_map[f"model.layers.{layer_idx}.{part}"] = "disk" if part == on_disk else "cpu"
    return device_map


def _dealt_map(num_hidden_layers: int, gpus: int) -> dict[str, Any]:
    """Return a device map that deals the layers to the GPUs in equal runs."""
    device_map = dict.fromkeys(_map(num_hidden_layers), 0)
    for layer_idx in range(num_hidden_layers):
        device_map[f"model.layers.{layer_idx}"] = layer_idx * gpus // num_hidden_layers
    for name in ("model.norm", "lm_head"):
        device_map[name] = gpus - 1
    return device_map


def mode_of(model: Any) -> LoadingMode:
    """Return the mode that a model which is there was loaded in; its place is called `given`."""
    quantisation = getattr(model.config, "quantization_config", None)
    if quantisation is not None:
        as_dict = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
        return LoadingMode("given", "8bit" if as_dict.get("load_in_8bit") else "4bit")
    # float16 rounds more finely than bfloat16, so what holds for that holds for it.
    precision = "float32" if model.dtype in (torch.float32, torch.float64) else "bfloat16"
    disk = "disk" in set((getattr(model, "hf_device_map", None) or {}).values())
    return LoadingMode("disk-given" if disk else "given", precision)
