"""Prefill and decoding with the KV cache that the model makes itself, timed; and what the cache holds then.

The steps are those of greedy `generate`: one pass over the prompt that computes the last token's logits alone, where
the class can do that (transformers 4.57.6 and 5.23.0, generation/utils.py, `_supports_logits_to_keep`), and then one
pass a token. `generate`'s own bookkeeping, the same for every model, is left out.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from harness.models.forward import NEW_CACHE, cache_of, input_device, with_cache

_CLOCK_SIZE: Final = 512


@dataclass(frozen=True)
class Generation:
    """What one run came to: seconds until the first token is known, and of the median step of those that follow.

    `cache_bytes` are those of all keys and values in the end, None for a cache of a kind that is not known;
    `cached_tokens` how many tokens a row has then.
    """

    prefill_seconds: float
    step_seconds: float
    cache_bytes: int | None
    cached_tokens: int


@torch.no_grad()
def timed_generation(model: Any, ids: Tensor, new_tokens: int) -> Generation:
    """Run the prompt `ids`, int64 (batch, tokens), and `new_tokens` steps behind it; returns seconds and bytes."""
    ids = ids.to(input_device(model))
    keep = {"logits_to_keep": 1} if _can_keep_logits(model) else {}
    synchronise()
    started = time.perf_counter()
    output = model(input_ids=ids, use_cache=True, **keep)
    token = _next_token(output)
    synchronise()
    prefilled = time.perf_counter()
    cache = cache_of(output)
    kept = with_cache(model, cache)
    ticks = [prefilled]
    for _ in range(new_tokens):
        token = _next_token(model(input_ids=token, use_cache=True, **kept))
        synchronise()  # as `generate`, which looks at each token before the next
        ticks.append(time.perf_counter())
    step_seconds = statistics.median(after - before for before, after in pairwise(ticks))
    return Generation(prefilled - started, step_seconds, cache_bytes(cache), ids.shape[1] + new_tokens)


@torch.no_grad()
def static_cache_bytes(model: Any, tokens: int) -> int | None:
    """Return the bytes of a static KV cache for one row of `tokens` tokens, as the model's first pass allocates it."""
    cache = NEW_CACHE["static"](model, tokens)
    model(input_ids=torch.ones((1, 1), dtype=torch.long, device=input_device(model)), **with_cache(model, cache))
    return cache_bytes(cache)


def cache_bytes(cache: Any) -> int | None:
    """Return the bytes of the keys and values of a cache's layers; None if it is of a kind that has none."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return None
    tensors = (getattr(layer, name, None) for layer in layers for name in ("keys", "values"))
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def clock_tick(device: torch.device) -> float:
    """Return the seconds that one fixed float32 matrix product takes on a device: how fast the machine is just now."""
    matrix = torch.ones((_CLOCK_SIZE, _CLOCK_SIZE), device=device)
    synchronise()
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    synchronise()
    return time.perf_counter() - started


def synchronise() -> None:
    """Wait until every GPU has done what it was told."""
    for index in range(torch.cuda.device_count()):
        torch.cuda.synchronize(index)


def _next_token(output: Any) -> Tensor:
    token: Tensor = output.logits[:, -1:].argmax(-1)  # (batch, 1)
    return token


def _can_keep_logits(model: Any) -> bool:
    supports = getattr(model, "_supports_logits_to_keep", None)
    return supports is not None and bool(supports())
