"""Carries a Llama over into the Qwen3 architecture exactly: where a real Llama can be had, so can a Qwen3.

A Qwen3 decoder layer is a Llama decoder layer with one RMSNorm more on each head of q and of k (`q_norm`,
`k_norm`). The conversion makes these norms do nothing, up to rounding. With `e` the config's
`rms_norm_eps`, a norm computes

    y = w * x / sqrt(mean(x**2) + e)

Feed it `x = q / T` (the rows of `q_proj` divided by T) and set `w = sqrt(e) * T`:

    y = q * sqrt(e) / sqrt(mean(q**2) / T**2 + e) = q / sqrt(1 + mean(q**2) / (T**2 * e))

Once the mean square of `x` is far below `e`, the norm divides by the constant `sqrt(e)`: y is q again, with
a relative error of `mean(q**2) / (2 * T**2 * e)`. The same holds for k.

A T that does this alone (2**24 for e = 1e-5) leaves `q_proj` and `k_proj` so small that float16
intermediates, as 8-bit quantisation uses them, underflow. So the residual stream is scaled by S as well:
`embed_tokens`, every `o_proj` and every `down_proj` are multiplied by S and e becomes `eps * S**2`, which
makes every layer norm compute what it did before, and the error above shrinks by S**2. The final norm's
weight is divided by S, since the tied output embedding has grown by S.

S and T are powers of two, so scaling changes exponents alone and rounds nothing. With the defaults the
float32 logits of SmolLM2-135M-Instruct move by 1e-4 where the largest is 37. float16 overflows: the family
is a bfloat16 one, as Qwen3 is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

STREAM_SCALE = 2.0**6
"""S: what the residual stream is multiplied by."""

QUERY_KEY_SCALE = 2.0**13
"""T: what the outputs of `q_proj` and `k_proj` are divided by."""

_SCALED_BY_STREAM = ("embed_tokens.weight", "self_attn.o_proj.weight", "mlp.down_proj.weight")
_UNCHANGED = (
    "self_attn.v_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
)


def qwen3_config(llama: Mapping[str, Any], *, stream_scale: float = STREAM_SCALE) -> dict[str, Any]:
    """Return the `config.json` of the Qwen3 that computes what the Llama with config `llama` computes.

    `llama` holds the fields of a `LlamaConfig` in the spelling of released checkpoints, `rope_theta` at the
    top level; the result is spelled the same way, since every transformers from 4.57 on reads it and newer
    spellings are lost on 4.57.
    """
    kept = (
        "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "hidden_size", "intermediate_size",
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
        "rope_theta",
    )  # fmt: skip
    return {name: llama[name] for name in kept} | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        # The dtype of the stored weights. 5.x loads in it unless told otherwise, 4.57 always in float32: so what
        # a plain load gives is the same everywhere, and exact.
        "dtype": "float32",
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": llama["num_hidden_layers"],
        "rms_norm_eps": llama["rms_norm_eps"] * stream_scale**2,
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
    }


def qwen3_state_dict(
    llama: Mapping[str, torch.Tensor],
    *,
    head_dim: int,
    rms_norm_eps: float,
    stream_scale: float = STREAM_SCALE,
    query_key_scale: float = QUERY_KEY_SCALE,
) -> dict[str, torch.Tensor]:
    """Return the Qwen3 weights that compute what the Llama weights `llama` compute.

    `llama` maps the parameter names of a `LlamaForCausalLM` with tied embeddings and no biases
    (`lm_head.weight` absent) to tensors of any floating dtype; names, shapes and dtype are kept, and each
    layer gains `self_attn.q_norm.weight` and `self_attn.k_norm.weight`, both of shape `(head_dim,)`.
    `rms_norm_eps` is the Llama's own, before scaling.

    Raises `ValueError` on a parameter that such a Llama does not have, since it would go over unscaled.
    """
    undone_by_norm = math.sqrt(rms_norm_eps * stream_scale**2) * query_key_scale
    qwen3: dict[str, torch.Tensor] = {}
    for name, weight in llama.items():
        if name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight")):
            qwen3[name] = weight / query_key_scale
            norm = name.replace("_proj.weight", "_norm.weight")
            qwen3[norm] = torch.full((head_dim,), undone_by_norm, dtype=weight.dtype)
        elif name.endswith(_SCALED_BY_STREAM):
            qwen3[name] = weight * stream_scale
        elif name == "model.norm.weight":
            qwen3[name] = weight / stream_scale
        elif name.endswith(_UNCHANGED):
            qwen3[name] = weight
        else:
            raise ValueError(f"{name!r} is no parameter of a Llama with tied embeddings and without biases")
    return qwen3
