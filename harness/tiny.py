"""Tiny random Qwen3 checkpoints that leave no sub-layer, norm or setting without consequence.

A fault can only be seen where the thing it breaks matters. A freshly initialised model hides several: its norms are
ones, so a lost norm changes nothing; its weights are so small that a sub-layer hardly moves the residual stream;
a lost `rope_theta` or `rms_norm_eps` falls back to the very value that was lost. `write_tiny_checkpoint` therefore
draws the weights itself and writes `config.json` in the form that Qwen's own releases have
(huggingface.co/Qwen/Qwen3-0.6B), which every supported transformers reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors.torch import save_file

LayerType = Literal["full_attention", "sliding_attention"]

# Special token ids of every tiny checkpoint; `generation_config.json` names them, `config.json` the last two.
PAD_TOKEN_ID: Final = 0
BOS_TOKEN_ID: Final = 1
EOS_TOKEN_ID: Final = 2

# With unit-RMS inputs a projection of this standard deviation has a gain near one at hidden sizes of 16 to 64.
_WEIGHT_STANDARD_DEVIATION: Final = 0.2
_NORM_SPREAD: Final = 0.5  # norm weights are uniform in 1 -+ this


@dataclass(frozen=True, kw_only=True)
class TinySpec:
    """Everything that determines a tiny checkpoint; equal specs give byte-identical files.

    `layer_types` is 'full', 'sliding', 'mixed' (sliding and full in turn, sliding first) or one entry a layer;
    `sliding_window` counts tokens; `shards` is the number of safetensors files. The sizes left out are such that
    bitsandbytes takes the checkpoint in 8-bit and 4-bit on every CPU: see `quantisable`.

    Raises:
        ValueError: A value that no Qwen3 checkpoint can have, with its name and the value.
    """

    layers: int = 4
    hidden_size: int = 64
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 128
    vocabulary_size: int = 64
    tied: bool = True
    layer_types: Literal["full", "sliding", "mixed"] | tuple[LayerType, ...] = "full"
    sliding_window: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"
    rope_theta: float = 500.0
    rms_norm_eps: float = 1e-3
    attention_bias: bool = False
    shards: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "heads", "key_value_heads", "intermediate_size", "sliding_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {name}={getattr(self, name)!r}")
        if self.vocabulary_size <= EOS_TOKEN_ID:
            raise ValueError(
                f"vocabulary_size must exceed the special token ids 0 to {EOS_TOKEN_ID}, "
                f"but got vocabulary_size={self.vocabulary_size!r}"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"key_value_heads must divide heads={self.heads!r}, but got key_value_heads={self.key_value_heads!r}"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"head_dim must be even and positive, but got head_dim={self.head_dim!r}")
        if isinstance(self.layer_types, tuple) and len(self.layer_types) != self.layers:
            raise ValueError(
                f"layer_types must have one entry a layer, {self.layers} in all, "
                f"but got layer_types={self.layer_types!r}"
            )
        tensors = len(tensor_shapes(self))
        if not 1 <= self.shards <= tensors:
            raise ValueError(f"shards must be in 1 to {tensors}, one tensor each, but got shards={self.shards!r}")


def quantisable(spec: TinySpec) -> bool:
    """Whether bitsandbytes can run the checkpoint in 4-bit on every CPU; 8-bit takes any size.

    Where the CPU has AVX512-BF16, its packed weights need output features divisible by 32 and input features
    divisible by the block size, 64 (bitsandbytes 0.50.2, functional.py, `_convert_weight_packed_for_cpu`).
    """
    return (
        spec.hidden_size % 64 == 0
        and spec.heads * spec.head_dim % 64 == 0
        and spec.key_value_heads * spec.head_dim % 32 == 0
        and spec.intermediate_size % 64 == 0
    )


def layer_types(spec: TinySpec) -> list[LayerType]:
    """The attention kind of each layer in the words of `config.json`, one entry a layer."""
    if isinstance(spec.layer_types, tuple):
        return list(spec.layer_types)
    cycles: dict[str, tuple[LayerType, ...]] = {
        "full": ("full_attention",),
        "sliding": ("sliding_attention",),
        "mixed": ("sliding_attention", "full_attention"),
    }
    cycle = cycles[spec.layer_types]
    return [cycle[index % len(cycle)] for index in range(spec.layers)]


def tensor_shapes(spec: TinySpec) -> dict[str, tuple[int, ...]]:
    """The checkpoint's keys in the order of the forward pass, each with the shape of its tensor.

    Shapes follow `Qwen3Attention`, `Qwen3MLP` and `Qwen3DecoderLayer` (transformers 5.23.0,
    models/qwen3/modeling_qwen3.py): weights are (output features, input features); a tied head has no key.
    """
    query_size, key_value_size = spec.heads * spec.head_dim, spec.key_value_heads * spec.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocabulary_size, spec.hidden_size)}
    for index in range(spec.layers):
        layer = f"model.layers.{index}"
        shapes[f"{layer}.input_layernorm.weight"] = (spec.hidden_size,)
        for name, outputs, inputs in (
            ("q_proj", query_size, spec.hidden_size),
            ("k_proj", key_value_size, spec.hidden_size),
            ("v_proj", key_value_size, spec.hidden_size),
            ("o_proj", spec.hidden_size, query_size),
        ):
            shapes[f"{layer}.self_attn.{name}.weight"] = (outputs, inputs)
            if spec.attention_bias:
                shapes[f"{layer}.self_attn.{name}.bias"] = (outputs,)
        shapes[f"{layer}.self_attn.q_norm.weight"] = (spec.head_dim,)
        shapes[f"{layer}.self_attn.k_norm.weight"] = (spec.head_dim,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (spec.hidden_size,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (spec.intermediate_size, spec.hidden_size)
        shapes[f"{layer}.mlp.up_proj.weight"] = (spec.intermediate_size, spec.hidden_size)
        shapes[f"{layer}.mlp.down_proj.weight"] = (spec.hidden_size, spec.intermediate_size)
    shapes["model.norm.weight"] = (spec.hidden_size,)
    if not spec.tied:
        shapes["lm_head.weight"] = (spec.vocabulary_size, spec.hidden_size)
    return shapes


def tiny_state_dict(spec: TinySpec) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors by key, of `spec.dtype` on the CPU, drawn from `spec.seed`."""
    generator = torch.Generator().manual_seed(spec.seed)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[spec.dtype]
    tensors = {}
    for name, shape in tensor_shapes(spec).items():
        if name.endswith("norm.weight"):
            tensor = 1 + _NORM_SPREAD * (2 * torch.rand(shape, generator=generator) - 1)
        else:
            tensor = _WEIGHT_STANDARD_DEVIATION * torch.randn(shape, generator=generator)
        tensors[name] = tensor.to(dtype)
    return tensors


def write_tiny_checkpoint(spec: TinySpec, directory: Path) -> Path:
    """Write the stock Qwen3 checkpoint that `spec` describes and return its directory.

    The directory is made if need be and gets `config.json`, `generation_config.json` (greedy) and
    `model.safetensors`, or, with several shards, `model-*-of-*.safetensors` and `model.safetensors.index.json`.

    Raises:
        FileExistsError: `directory` holds a checkpoint already, whose shards could be left over beside the new.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "config.json").exists():
        raise FileExistsError(f"{directory} holds a checkpoint already; write each into a directory of its own")
    _write_json(directory / "config.json", config_dict(spec))
    _write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": BOS_TOKEN_ID,
            "eos_token_id": EOS_TOKEN_ID,
            "pad_token_id": PAD_TOKEN_ID,
            "do_sample": False,
        },
    )
    tensors = tiny_state_dict(spec)
    if spec.shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory

    weight_map: dict[str, str] = {}
    items = iter(tensors.items())
    for shard in range(spec.shards):
        size = len(tensors) * (shard + 1) // spec.shards - len(tensors) * shard // spec.shards
        file_name = f"model-{shard + 1:05d}-of-{spec.shards:05d}.safetensors"
        content = dict(islice(items, size))
        save_file(content, directory / file_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(content, file_name))
    total_size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    _write_json(directory / "model.safetensors.index.json", index)
    return directory


def config_dict(spec: TinySpec) -> dict[str, object]:
    """The content of the checkpoint's `config.json`."""
    types = layer_types(spec)
    slides = "sliding_attention" in types
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": spec.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": BOS_TOKEN_ID,
        "eos_token_id": EOS_TOKEN_ID,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": spec.intermediate_size,
        "layer_types": types,
        "max_position_embeddings": 256,
        "max_window_layers": 0 if slides else spec.layers,
        "model_type": "qwen3",
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.key_value_heads,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": spec.rope_theta,
        "sliding_window": spec.sliding_window if slides else None,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": spec.dtype,
        "use_cache": True,
        "use_sliding_window": slides,
        "vocab_size": spec.vocabulary_size,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
