"""A bfloat16 Qwen3 of the size of Qwen3-8B, whose weights are drawn on the device that runs it, and a shorter one."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from harness.tiny import TinySpec, config_dict, tensor_shapes

LAYERS_OF_A_SHARD = 3
_STANDARD_DEVIATION = 0.02  # as Qwen's own config.json has it, `initializer_range`
_HEAD_FILE = "model-head.safetensors"

# The shape of Qwen3-8B (its config.json: 8.2 billion parameters), and one that shows in seconds that all works.
LARGE = TinySpec(
    layers=36, hidden_size=4096, intermediate_size=12288, heads=32, key_value_heads=8, head_dim=128,
    vocabulary_size=151936, tied=False, dtype="bfloat16", rms_norm_eps=1e-6, rope_theta=1e6,
)  # fmt: skip
SMALL = TinySpec(
    layers=12, hidden_size=128, intermediate_size=256, heads=4, key_value_heads=2, head_dim=32,
    vocabulary_size=512, tied=False, dtype="bfloat16", rms_norm_eps=1e-6, rope_theta=1e6,
)  # fmt: skip


def write_large(spec: TinySpec, root: Path, device: str) -> Path:
    """Write a checkpoint with a shard for every three layers, and one for what is outside of them; return `root`."""
    generator = torch.Generator(device).manual_seed(0)
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in tensor_shapes(spec).items():
        shards.setdefault(_file_of(name), {})[name] = shape
    root.mkdir(parents=True)
    for file_name, shapes in shards.items():
        tensors = {
            name: torch.ones(shape, dtype=torch.bfloat16)
            if len(shape) == 1
            else torch.empty(shape, dtype=torch.bfloat16, device=device)
            .normal_(0, _STANDARD_DEVIATION, generator=generator)
            .cpu()
            for name, shape in shapes.items()
        }
        save_file(tensors, root / file_name, metadata={"format": "pt"})
    return _describe(spec, root, {name: file_name for file_name, shapes in shards.items() for name in shapes})


def write_shorter(spec: TinySpec, source: Path, root: Path) -> Path:
    """Write the first layers of `source`, as many as `spec` has, as a checkpoint of the same files; return `root`."""
    weight_map = {name: _file_of(name) for name in tensor_shapes(spec)}
    root.mkdir(parents=True)
    for file_name in set(weight_map.values()):
        os.link(source / file_name, root / file_name)
    return _describe(spec, root, weight_map)


def _file_of(name: str) -> str:
    if ".layers." not in name:
        return _HEAD_FILE
    return f"model-layers-{int(name.split('.')[2]) // LAYERS_OF_A_SHARD:02d}.safetensors"


def _describe(spec: TinySpec, root: Path, weight_map: dict[str, str]) -> Path:
    config = {**config_dict(spec), "max_position_embeddings": 40960}
    total = sum((root / file_name).stat().st_size for file_name in set(weight_map.values()))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    for name, content in (("config.json", config), ("model.safetensors.index.json", index)):
        (root / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return root
