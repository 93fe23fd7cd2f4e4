"""Checkpoints as large as any, of which the disk holds the headers alone: real names and shapes, holes for values."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.unit.checkpoints import raw_shard, tiny_config

# A dense Qwen3 of 235 billion parameters: those that there are of that size are mixtures of experts.
GIANT = {
    "num_hidden_layers": 95, "hidden_size": 12288, "intermediate_size": 57344, "num_attention_heads": 96,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
}  # fmt: skip
_BYTES = 2  # an element of bfloat16


def write_sparse(root: Path, shape: dict[str, int] = GIANT, *, shard_bytes: int = 5 * 10**9) -> Path:
    """Write a Qwen3 of bfloat16 in shards of at most `shard_bytes`, or of one tensor; return `root`."""
    shards: list[dict[str, list[int]]] = [{}]
    filled = 0
    for name, sizes in _tensors(shape):
        size = math.prod(sizes) * _BYTES
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = sizes
        filled += size
    config = tiny_config(**{**shape, "layers": shape["num_hidden_layers"]}, tie_word_embeddings=False)
    return write_shards(root, shards, config)


def write_many(root: Path, *, tensors: int, shards: int) -> Path:
    """Write a checkpoint of so many small tensors, an equal number in each of the shards; return `root`.

    They come by name, as the safetensors library writes those of a dtype (safetensors 0.8.0, `tensor.rs`, prepare).
    """
    of_shard = tensors // shards
    names = sorted(f"model.layers.{number % 12}.mlp.e{number}.w" for number in range(tensors))
    parts = [{name: [2] for name in names[first : first + of_shard]} for first in range(0, tensors, of_shard)]
    return write_shards(root, parts, tiny_config(12))


def write_shards(root: Path, shards: list[dict[str, list[int]]], config: dict[str, Any]) -> Path:
    """Write shards of name -> shape, with a header and not one block behind it, index and config; return `root`."""
    root.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for key, sizes in tensors.items():
            begin, end = end, end + math.prod(sizes) * _BYTES
            header[key] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
        start = raw_shard(json.dumps(header, separators=(",", ":")).encode())
        with (root / name).open("wb") as file:
            file.write(start)
            file.truncate(len(start) + end)
        weight_map |= dict.fromkeys(tensors, name)
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (root / "config.json").write_text(json.dumps(config))
    return root


def stored_bytes(root: Path) -> int:
    """Return the bytes of all blocks that the disk holds of a directory's files."""
    return sum(path.stat().st_blocks * 512 for path in root.iterdir())


def _tensors(shape: dict[str, int]) -> Iterator[tuple[str, list[int]]]:
    hidden, inner, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    heads, key_value_heads = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    layer = {
        "input_layernorm": [hidden],
        "self_attn.q_proj": [heads, hidden],
        "self_attn.k_proj": [key_value_heads, hidden],
        "self_attn.v_proj": [key_value_heads, hidden],
        "self_attn.o_proj": [hidden, heads],
        "self_attn.q_norm": [head],
        "self_attn.k_norm": [head],
        "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    yield "model.embed_tokens.weight", [shape["vocab_size"], hidden]
    for layer_idx in range(shape["num_hidden_layers"]):
        yield from ((f"model.layers.{layer_idx}.{name}.weight", sizes) for name, sizes in layer.items())
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [shape["vocab_size"], hidden]
