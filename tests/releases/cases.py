"""What is examined: tiny checkpoints and plans, kinds of KV cache, and ways of using them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Cache, DynamicCache, StaticCache

from harness.models.forward import TokenBatch, cached_logits, uncached_logits, unpadded
from harness.models.generation import generated_steps, with_new_tokens
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

LAYERS = 4
PLANS = {
    "layer 0": ("full", PrunePlan(self_attn=[0])),
    "hybrid": ("mixed", PrunePlan(self_attn=[0, 2], mlp=[1])),  # every sliding attention
    "whole layers": ("mixed", PrunePlan(self_attn=[0, 1], mlp=[0, 1])),
    "everything": ("mixed", PrunePlan(self_attn=range(LAYERS), mlp=range(LAYERS))),
}
_TOKENS = 14  # longer than the sliding window


@dataclass(frozen=True)
class Pair:
    """An unpruned checkpoint, and what a plan makes of it."""

    base: Path
    pruned: Path
    plan: PrunePlan


def write_pair(spec: TinySpec, plan: PrunePlan, folder: Path) -> Pair:
    """Write both checkpoints into a new folder."""
    base = write_tiny_checkpoint(spec, folder / "base")
    prune_checkpoint(base, folder / "pruned", plan, sync=False)
    return Pair(base, folder / "pruned", plan)


def _early_initialised(model: Any, tokens: int) -> Cache:
    cache = StaticCache(config=model.config, max_cache_len=tokens)
    config = model.config
    cache.early_initialization(2, config.num_key_value_heads, config.head_dim, torch.float32, torch.device("cpu"))
    return cache


CACHES: dict[str, Callable[[Any, int], Cache]] = {
    "dynamic": lambda model, tokens: DynamicCache(config=model.config),
    "static": lambda model, tokens: StaticCache(config=model.config, max_cache_len=tokens),
    "static, initialised early": _early_initialised,
}
PIECES = {
    "one step at a time": (_TOKENS - 5, 1, 1, 1, 1, 1),
    "chunked": (3, 4, 5, 1, 1),
    "left-padded": (_TOKENS - 5, 1, 1, 1, 2),
}
GENERATIONS: dict[str, dict[str, Any]] = {
    "generate, dynamic": {},
    "generate, static": {"cache_implementation": "static"},
    "generate, no cache": {"use_cache": False},
    "beams, dynamic": {"num_beams": 3},
    "beams, static": {"num_beams": 3, "cache_implementation": "static"},
}


def batch(*, padded: bool, length: int = _TOKENS) -> TokenBatch:
    """Return two rows of ids that are not special tokens, one with four columns of padding if `padded`."""
    ids = torch.randint(3, 64, (2, length), generator=torch.Generator().manual_seed(2))
    mask = torch.stack([torch.arange(length) >= columns for columns in (0, 4)]).long()
    return TokenBatch(ids, mask) if padded else unpadded(ids)


Compared = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Logits, what they should be (both rows, tokens, vocabulary), and which tokens count (rows, tokens)."""


def through_cache(model: Any, kind: str, use: str, reference: Any) -> Compared:
    """Compare what `model` computes in pieces through a cache with what `reference` computes without one."""
    tokens = batch(padded=use == "left-padded")
    got, _ = cached_logits(model, tokens, CACHES[kind](model, _TOKENS), PIECES[use])
    return [(got, uncached_logits(reference, tokens), tokens.mask)]


def in_generate(model: Any, use: str, reference: Any) -> Compared:
    """Compare each step of a left-padded `generate` with what `reference` computes of the same tokens, uncached."""
    tokens = batch(padded=True)
    compared = []
    for ids, log_probabilities in generated_steps(model, tokens, max_new_tokens=4, **GENERATIONS[use]):
        expected = uncached_logits(reference, with_new_tokens(tokens, ids))[:, -1:].log_softmax(-1)
        compared.append((log_probabilities[:, None], expected, torch.ones(expected.shape[:2])))
    return compared
