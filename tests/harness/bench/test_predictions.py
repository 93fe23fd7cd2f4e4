"""What a plan saves, as predicted from the config, is what counting gives on stock and pruned models."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from harness.bench.cost_model import (
    NOTHING_PRUNED,
    cache_bytes,
    head_weights,
    layer_weights,
    multiply_adds,
    step_bytes,
    visible_pairs,
)
from harness.bench.inference import cache_bytes as measured_cache_bytes
from harness.models.forward import with_cache
from harness.strategies import plans, tiny_specs
from harness.tiny import config_dict
from pruning import PrunedQwen3ForCausalLM, PrunePlan
from pruning.remote.configuration_pruned_qwen3 import PrunedQwen3Config

pytestmark = pytest.mark.newest


@st.composite
def models(draw: st.DrawFn) -> tuple[Any, PrunePlan]:
    """A model of random weights, the stock one where nothing is pruned, and its plan."""
    spec = draw(tiny_specs(dtypes=("float32",)))
    plan = draw(plans(spec.layers))
    content = config_dict(spec)
    if plan.is_empty:
        return Qwen3ForCausalLM._from_config(Qwen3Config(**content), attn_implementation="eager").eval(), plan
    content |= {"model_type": "pruned_qwen3", "per_layer_config": plan.to_per_layer_config()}
    return PrunedQwen3ForCausalLM._from_config(PrunedQwen3Config(**content), attn_implementation="eager").eval(), plan


@torch.no_grad()
def counted(model: Any, ids: torch.Tensor, cache: DynamicCache) -> int:
    """The multiply-adds of one pass, as torch counts them; those of the rotary embedding left out."""
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=True, logits_to_keep=1, **with_cache(model, cache))
    of_rotary = sum(sum(each.values()) for name, each in counter.get_flop_counts().items() if "rotary" in name)
    return (counter.get_total_flops() - of_rotary) // 2


@given(models())
def test_weights(drawn: tuple[Any, PrunePlan]) -> None:
    """The elements of the kept linear modules are those that the model has."""
    model, plan = drawn
    held = {name: parameter.numel() for name, parameter in model.named_parameters() if "_proj.weight" in name}
    assert layer_weights(model.config, plan) == sum(held.values())
    assert head_weights(model.config) == model.lm_head.weight.numel()


@given(models(), st.integers(1, 2), st.integers(1, 9))
def test_steps(drawn: tuple[Any, PrunePlan], batch: int, tokens: int) -> None:
    """Token by token, multiply-adds and cache are those predicted: one element a token for each pruned attention."""
    model, plan = drawn
    config = model.config
    cache = DynamicCache(config=config)
    ids = torch.zeros((batch, 1), dtype=torch.long)
    total = sum(counted(model, ids, cache) for _ in range(tokens))
    assert total == sum(multiply_adds(config, plan, batch=batch, past=past, new=1) for past in range(tokens))
    # A prefill of as many tokens computes the head once, where it skips what the mask hides.
    heads = batch * (tokens - 1) * head_weights(config)
    assert total - heads == multiply_adds(config, plan, batch=batch, past=0, new=tokens)
    of_pruned = sum(cache.layers[layer_idx].keys.nbytes for layer_idx in plan.self_attn)
    predicted = cache_bytes(config, plan, "float32", batch=batch, tokens=tokens)
    measured = measured_cache_bytes(cache)
    assert measured == predicted + of_pruned
    assert of_pruned <= 4 * batch * tokens * len(plan.self_attn)


@given(models(), st.integers(1, 12))
def test_prefill_in_eager_attention(drawn: tuple[Any, PrunePlan], tokens: int) -> None:
    """A kernel that computes what the mask hides costs the whole rectangle of queries and keys, and no more."""
    model, plan = drawn
    config = model.config
    hidden = tokens * tokens - visible_pairs(0, tokens, None)
    sliding = [
        visible_pairs(0, tokens, None) - visible_pairs(0, tokens, config.sliding_window)
        for layer_idx, kind in enumerate(config.layer_types)
        if kind == "sliding_attention" and layer_idx not in plan.self_attn
    ]
    kept = config.num_hidden_layers - len(plan.self_attn)
    extra = 2 * config.num_attention_heads * config.head_dim * (kept * hidden + sum(sliding))
    predicted = multiply_adds(config, plan, batch=1, past=0, new=tokens)
    ids = torch.zeros((1, tokens), dtype=torch.long)
    assert counted(model, ids, DynamicCache(config=config)) == predicted + extra


@given(st.integers(0, 20), st.integers(1, 20), st.none() | st.integers(1, 8))
def test_visible_pairs(past: int, new: int, width: int | None) -> None:
    """The pairs that the mask lets through are as many as a mask has ones."""
    query, key = torch.arange(past, past + new)[:, None], torch.arange(past + new)[None, :]
    mask = (key <= query) & (key > query - (width or past + new))
    assert visible_pairs(past, new, width) == int(mask.sum())


@given(tiny_specs(), st.integers(1, 3), st.integers(1, 9))
def test_bytes_of_a_step(spec: Any, batch: int, past: int) -> None:
    """A step reads every weight once, in the width that its precision has, and the cache of every row."""
    config = Qwen3Config(**config_dict(spec))
    weights, head = layer_weights(config, NOTHING_PRUNED), head_weights(config)
    cached = cache_bytes(config, NOTHING_PRUNED, "bfloat16", batch=batch, tokens=past)
    for precision, width, other in (("float32", 4, 4), ("bfloat16", 2, 2), ("8bit", 1, 2), ("4bit", 0.5625, 2)):
        cache = cached * other // 2
        assert step_bytes(config, NOTHING_PRUNED, precision, batch=batch, past=past) == (
            weights * width + head * other + cache
        )
    everything = PrunePlan(self_attn=tuple(range(spec.layers)), mlp=tuple(range(spec.layers)))
    assert step_bytes(config, everything, "float32", batch=batch, past=past) == 4 * head
