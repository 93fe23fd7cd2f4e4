"""Synthetic Qwen3 checkpoints: right in every name and shape, random in every byte; no model is built."""

import json
from pathlib import Path
from typing import Any

import numpy as np

BYTES_PER_ELEMENT = 2  # bfloat16
SHARD_BYTES = 600_000_000

# The shape of Qwen3-1.7B, but for the number of layers and of tokens, which follow from the size.
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
_SHARE_OF_EMBEDDING = 0.18


def write_synthetic(root: Path, size: int) -> Path:
    """Write a Qwen3 checkpoint of about `size` bytes, in shards, two layers at least; return `root`."""
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    layer = {
        "input_layernorm": [hidden],
        "self_attn.q_proj": [CONFIG["num_attention_heads"] * CONFIG["head_dim"], hidden],
        "self_attn.k_proj": [CONFIG["num_key_value_heads"] * CONFIG["head_dim"], hidden],
        "self_attn.v_proj": [CONFIG["num_key_value_heads"] * CONFIG["head_dim"], hidden],
        "self_attn.o_proj": [hidden, CONFIG["num_attention_heads"] * CONFIG["head_dim"]],
        "self_attn.q_norm": [CONFIG["head_dim"]],
        "self_attn.k_norm": [CONFIG["head_dim"]],
        "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    layer_bytes = sum(int(np.prod(shape)) for shape in layer.values()) * BYTES_PER_ELEMENT
    layers = max(2, round(size * (1 - _SHARE_OF_EMBEDDING) / layer_bytes))
    tokens = max(1024, round(size * _SHARE_OF_EMBEDDING / hidden / BYTES_PER_ELEMENT))
    shapes = {"model.embed_tokens.weight": [tokens, hidden]}
    for layer_idx in range(layers):
        shapes |= {f"model.layers.{layer_idx}.{name}.weight": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = [hidden]
    root.mkdir(parents=True)
    _write_weights(root, shapes)
    config = {**CONFIG, "num_hidden_layers": layers, "vocab_size": tokens}
    (root / "config.json").write_text(json.dumps(config, indent=2))
    return root


def write_headers_only(root: Path, *, tensors: int, shards: int) -> Path:
    """Write a checkpoint of many tensors whose files hold a header and no block behind it; return `root`."""
    of_layer = [*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.expert_{expert}" for expert in range(96))]
    layers = tensors // len(of_layer)
    names = [f"model.layers.{layer_idx}.{name}.weight" for layer_idx in range(layers) for name in of_layer]
    root.mkdir(parents=True)
    _write_shards(root, _chunks(names, -(-len(names) // shards)), {name: [1024, 1024] for name in names}, filled=False)
    config = {**CONFIG, "num_hidden_layers": layers, "vocab_size": 1024}
    (root / "config.json").write_text(json.dumps(config, indent=2))
    return root


def _write_weights(root: Path, shapes: dict[str, list[int]]) -> None:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = _bytes(shape)
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    _write_shards(root, shards, shapes, filled=True)


def _write_shards(root: Path, shards: list[list[str]], shapes: dict[str, list[int]], *, filled: bool) -> None:
    random = np.random.default_rng(0)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            begin, end = end, end + _bytes(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
            weight_map[name] = file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (root / file_name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            if filled:
                for name in names:
                    file.write(random.bytes(_bytes(shapes[name])))
            else:
                file.truncate(8 + len(text) + end)
    index = {"metadata": {"total_size": sum(map(_bytes, shapes.values()))}, "weight_map": weight_map}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))


def _chunks(names: list[str], size: int) -> list[list[str]]:
    return [names[first : first + size] for first in range(0, len(names), size)]


def _bytes(shape: list[int]) -> int:
    return int(np.prod(shape)) * BYTES_PER_ELEMENT
