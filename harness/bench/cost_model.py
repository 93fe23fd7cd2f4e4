"""What a plan saves, told from the config alone: multiply-adds, cache elements, bytes that a step reads.

These bound the gain: time falls by no more than the share of the work that goes away, and by less where there is work
that no plan touches. All formulas are those of the stock decoder layer (transformers 5.23.0,
models/qwen3/modeling_qwen3.py); norms, rotary embeddings, activations and the softmax are left out, since they are
linear in the hidden size where the matrices are quadratic.

`config` is a stock config object throughout. Per layer, with H the hidden size, I the intermediate size, N query heads,
K key and value heads of width D:

| part | elements of the weights, hence multiply-adds a token |
|---|---|
| q_proj, o_proj | H N D each |
| k_proj, v_proj | H K D each |
| gate_proj, up_proj, down_proj | H I each |

and once a model, H times the vocabulary for lm_head.
"""

from __future__ import annotations

from typing import Any, Final

from pruning import PrunePlan

NOTHING_PRUNED: Final = PrunePlan()

# Bytes of one weight of a linear module of a decoder layer as it lies in memory. 4-bit weights have, beside their half
# byte, one float32 a block of 64 (bitsandbytes 0.50.2, functional.py, `quantize_4bit`, without double quantisation).
_LINEAR_BYTES: Final = {"float32": 4.0, "bfloat16": 2.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}
# Of everything else: bitsandbytes leaves head, embedding, norms and the cache in the model's dtype.
OTHER_BYTES: Final = {"float32": 4, "bfloat16": 2, "8bit": 2, "4bit": 2}


def attention_weights(config: Any) -> int:
    """Return the elements of one layer's q, k, v and o projections: 2 H N D + 2 H K D; biases left out."""
    heads = config.num_attention_heads + config.num_key_value_heads
    return int(2 * config.hidden_size * heads * config.head_dim)


def mlp_weights(config: Any) -> int:
    """Return the elements of one layer's gate, up and down projections: 3 H I."""
    return int(3 * config.hidden_size * config.intermediate_size)


def head_weights(config: Any) -> int:
    """Return the elements of lm_head, tied or not: H times the vocabulary."""
    return int(config.hidden_size * config.vocab_size)


def layer_weights(config: Any, plan: PrunePlan) -> int:
    """Return the elements of all linear modules in the decoder layers that a plan keeps."""
    attentions = config.num_hidden_layers - len(plan.self_attn)
    mlps = config.num_hidden_layers - len(plan.mlp)
    return int(attentions * attention_weights(config) + mlps * mlp_weights(config))


def window(config: Any, layer_idx: int) -> int | None:
    """Return how many tokens an attention looks back on, itself among them; None for all."""
    types = getattr(config, "layer_types", None)
    slides = types is not None and types[layer_idx] == "sliding_attention"
    return int(config.sliding_window) if slides else None


def visible_pairs(past: int, new: int, width: int | None) -> int:
    """Return the pairs of a query and a key that the causal mask of one attention lets through.

    `new` tokens follow `past` ones, so the i-th sees min(past + i, width) keys: a kernel that skips what is masked
    computes these, and one that does not (eager attention) computes the whole rectangle.
    """
    if width is None:
        return new * past + new * (new + 1) // 2
    return sum(min(past + number, width) for number in range(1, new + 1))


def multiply_adds(config: Any, plan: PrunePlan, *, batch: int, past: int, new: int, logits: int = 1) -> int:
    """Return the multiply-adds of one forward pass of `batch` rows of `new` tokens behind `past` cached ones.

    A row takes `new` times the elements of the kept linear modules; for each kept attention, query head and visible
    pair, D for the score and D for the weighted value; and the head's elements for each of the `logits` last tokens.
    """
    pairs = sum(
        visible_pairs(past, new, window(config, layer_idx))
        for layer_idx in range(config.num_hidden_layers)
        if layer_idx not in plan.self_attn
    )
    attention = 2 * config.num_attention_heads * config.head_dim * pairs
    return int(batch * (new * layer_weights(config, plan) + attention + logits * head_weights(config)))


def cache_elements(config: Any, plan: PrunePlan, tokens: int) -> int:
    """Return the elements of keys and values that a dynamic KV cache holds of one row of `tokens` tokens: 2 K D each.

    A sliding attention's slot holds the last width - 1 (transformers 4.57.6 and 5.23.0, cache_utils.py,
    `DynamicSlidingWindowLayer.update`), a pruned attention's none.
    """
    held = 0
    for layer_idx in range(config.num_hidden_layers):
        width = window(config, layer_idx)
        if layer_idx not in plan.self_attn:
            held += tokens if width is None else min(tokens, width - 1)
    return int(2 * config.num_key_value_heads * config.head_dim * held)


def cache_bytes(config: Any, plan: PrunePlan, precision: str, *, batch: int, tokens: int) -> int:
    """Return the bytes of a dynamic KV cache of `batch` rows of `tokens` tokens, of a loading mode's precision."""
    return batch * cache_elements(config, plan, tokens) * OTHER_BYTES[precision]


def step_bytes(config: Any, plan: PrunePlan, precision: str, *, batch: int, past: int) -> float:
    """Return the bytes that one step of decoding reads at least: every kept weight and the head once, and the cache.

    The bytes of a weight are those of its precision; rows of the embedding are too few to count, and the state of
    8-bit weights, one float32 a row, is left out. What is offloaded is read as well, from wherever it lies.
    """
    weights = layer_weights(config, plan) * _LINEAR_BYTES[precision]
    head = head_weights(config) * OTHER_BYTES[precision]
    return weights + head + cache_bytes(config, plan, precision, batch=batch, tokens=past)
