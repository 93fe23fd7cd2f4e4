"""Reads a Llama out of a GGUF file: config, weights and tokenizer, in the names that transformers uses.

transformers has a reader of its own (`gguf_file=`), which the tests compare this one with. It is not used
here because what it makes of one file depends on its release: the tokenizer of this checkpoint ends its
turns with `<|im_start|>` on 4.57 and has five tokens that the model has no embedding for on 5.0. It also
prints progress bars.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_CONTROL_TOKEN = 3
"""`tokenizer.ggml.token_type` of a token that text never produces (`LLAMA_TOKEN_TYPE_CONTROL` in llama.cpp)."""

_OUTSIDE_LAYERS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_INSIDE_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_config(reader: GGUFReader) -> dict[str, Any]:
    """Return the Llama's config in the fields and the spelling of a released `LlamaConfig`."""
    heads = _value(reader, "llama.attention.head_count")
    hidden_size = _value(reader, "llama.embedding_length")
    return {
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
        "vocab_size": _value(reader, "llama.vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden_size // heads,
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "rope_theta": _value(reader, "llama.rope.freq_base"),
        "rms_norm_eps": _value(reader, "llama.attention.layer_norm_rms_epsilon"),
    }


def read_weights(reader: GGUFReader) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each parameter's name and its weight, dequantised to float32.

    Shapes are those of the `LlamaForCausalLM`: `(out_features, in_features)`, or `(features,)` for a norm.
    """
    config = read_config(reader)
    for tensor in reader.tensors:
        # A copy: an unquantised tensor is a read-only view of the file.
        weight = torch.from_numpy(numpy.array(dequantize(tensor.data, tensor.tensor_type)))
        if tensor.name in _OUTSIDE_LAYERS:
            yield _OUTSIDE_LAYERS[tensor.name], weight
            continue
        _, layer, kind, _ = tensor.name.split(".")  # "blk.7.attn_q.weight"
        if kind == "attn_q":
            weight = _rotary_halves(weight, config["num_attention_heads"])
        elif kind == "attn_k":
            weight = _rotary_halves(weight, config["num_key_value_heads"])
        yield f"model.layers.{layer}.{_INSIDE_LAYER[kind]}.weight", weight


def write_tokenizer(reader: GGUFReader, directory: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into `directory`.

    Only the `smollm` kind of byte-level BPE is known: digits split one by one, then GPT-2's pattern, as
    llama.cpp does.
    """
    tokens: list[str] = _value(reader, "tokenizer.ggml.tokens")
    merges: list[str] = _value(reader, "tokenizer.ggml.merges")
    kinds: list[int] = _value(reader, "tokenizer.ggml.token_type")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[(left, right) for left, right in (merge.split(" ") for merge in merges)],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    tokenizer.save(str(directory / "tokenizer.json"))

    special = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    tokenizer_config = {
        "clean_up_tokenization_spaces": False,
        # Without this 4.57 also gives token_type_ids, which `generate` of a Qwen3 refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _value(reader, "llama.context_length"),
        # The one name that makes every major take tokenizer.json as it is; the Qwen2 classes rebuild it.
        "tokenizer_class": "PreTrainedTokenizerFast",
    } | {name: tokens[_value(reader, f"tokenizer.ggml.{key}_token_id")] for name, key in special.items()}
    for name, text in (
        ("tokenizer_config.json", json.dumps(tokenizer_config, indent=2) + "\n"),
        ("chat_template.jinja", _value(reader, "tokenizer.chat_template")),
    ):
        (directory / name).write_text(text, encoding="utf-8")


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _rotary_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo llama.cpp's order of the rows of `attn_q` and `attn_k`.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), ... of a head; transformers rotates row i with row i
    + head_dim/2.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[-1])  # (heads, head_dim / 2, 2, hidden_size)
    return pairs.transpose(1, 2).reshape(weight.shape).contiguous()
