"""Tiny Qwen3 checkpoints, written by hand and read by the safetensors library: no torch, nothing of `pruning`."""

import hashlib
import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from safetensors import deserialize

import pruning

ATTENTION_TENSORS = ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
MLP_TENSORS = ("gate_proj", "up_proj", "down_proj")
CARD_BEGIN = b"<!-- prunecheck: what was pruned. This part is written anew whenever the checkpoint is pruned. -->"
CARD_END = b"<!-- prunecheck: what follows is the card of what was pruned. -->"
ELEMENT_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1}


def tiny_config(layers: int = 3, **overrides: Any) -> dict[str, Any]:
    """Return a Qwen3 `config.json`, as far as `pruning` reads it and a bit beyond."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "hidden_size": 8,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **overrides,
    }


def keys_of_layer(layer_idx: int, prefix: str = "model.") -> list[str]:
    """Return the state dict keys of one decoder layer."""
    return [
        f"{prefix}layers.{layer_idx}.{name}.weight"
        for name in (
            "input_layernorm",
            *(f"self_attn.{tensor}" for tensor in ATTENTION_TENSORS),
            "post_attention_layernorm",
            *(f"mlp.{tensor}" for tensor in MLP_TENSORS),
        )
    ]


def keys_of_model(layers: int = 3, *, prefix: str = "model.", tied: bool = True) -> list[str]:
    """Return the state dict keys of a whole model."""
    return [
        f"{prefix}embed_tokens.weight",
        *(key for layer_idx in range(layers) for key in keys_of_layer(layer_idx, prefix)),
        f"{prefix}norm.weight",
        *([] if tied else ["lm_head.weight"]),
    ]


def tensor_bytes(name: str, size: int) -> bytes:
    """Return bytes that are a tensor's own, so that a mix-up shows."""
    return hashlib.shake_128(name.encode()).digest(size)


def write_shard(path: Path, tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None) -> None:
    """Write a shard of name -> (dtype, shape); the bytes are `tensor_bytes`."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, shape) in tensors.items():
        begin = len(data)
        data += tensor_bytes(name, math.prod(shape) * ELEMENT_BYTES[dtype])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    path.write_bytes(raw_shard(header, data))


def write_checkpoint(
    root: Path,
    *,
    layers: int = 3,
    shards: int = 1,
    prefix: str = "model.",
    tied: bool = True,
    metadata: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    dtype: str = "BF16",
) -> Path:
    """Write a whole checkpoint in one file, or in equal runs of keys over several with an index; return `root`."""
    root.mkdir(parents=True, exist_ok=True)
    keys = keys_of_model(layers, prefix=prefix, tied=tied)
    write_weights(root, {key: (dtype, [2, 3]) for key in keys}, shards=shards, metadata=metadata)
    (root / "config.json").write_text(json.dumps(tiny_config(layers) | (config or {})))
    return root


def write_weights(
    root: Path,
    tensors: dict[str, tuple[str, list[int]]],
    *,
    shards: int = 1,
    metadata: dict[str, str] | list[dict[str, str] | None] | None = None,
) -> None:
    """Write the weights of name -> (dtype, shape) as equal runs of keys, with one `metadata` or a list of each's."""
    names = [f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)]
    if shards == 1:
        names = ["model.safetensors"]
    keys = list(tensors)
    run = -(-len(keys) // shards)
    weight_map: dict[str, str] = {}
    for number, name in enumerate(names):
        part = keys[number * run : (number + 1) * run]
        own_metadata = metadata[number] if isinstance(metadata, list) else metadata
        write_shard(root / name, {key: tensors[key] for key in part}, own_metadata)
        weight_map |= dict.fromkeys(part, name)
    if shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))


def read_tensors(root: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Read every tensor of a checkpoint directory with the library: name -> dtype, shape, bytes."""
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for path in sorted(root.glob("*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):
            assert name not in tensors, f"{name} is stored twice"
            tensors[name] = (tensor["dtype"], list(tensor["shape"]), bytes(tensor["data"]))
    return tensors


def read_files(root: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a directory by its relative path, hidden ones included."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def raw_shard(header: object, data: bytes = b"") -> bytes:
    """Return a safetensors file as bytes, with a header (bytes, or what json.dumps takes) that need not be right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@st.composite
def plan_lists(draw: st.DrawFn, layers: int) -> dict[str, tuple[int, ...]]:
    """Draw the arguments of a PrunePlan for a model of `layers` layers."""
    indexes = st.lists(st.integers(0, layers - 1), unique=True).map(tuple)
    return {"self_attn": draw(indexes), "mlp": draw(indexes)}


def cards() -> st.SearchStrategy[bytes]:
    """Draw model cards: fences of front matter, whole or not, all line ends, our own comments, any bytes."""
    parts = [
        b"---", b"--- ", b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b" ", b"license: mit", b"# Title", b"\xff\x00",
        CARD_BEGIN, CARD_END, b"---\nlicense: mit\n---\n", b"---\r\nlicense: mit\r\n---\r\n",
    ]  # fmt: skip
    return st.lists(st.sampled_from(parts) | st.binary(max_size=4), max_size=12).map(b"".join)


def run_python(
    code: str, *arguments: object, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter that imports the same `pruning`; the arguments are `sys.argv[1:]`."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(pruning.__file__).parents[1],
        env=os.environ | environment,
        check=check,
        capture_output=not check,
        text=True,
        timeout=120,
    )


def exactly(message: object) -> str:
    """Return the pattern for `pytest.raises(match=...)` that only this one line matches."""
    return rf"\A{re.escape(str(message))}\Z"
