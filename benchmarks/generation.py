"""Prefill and decoding as work to be measured: ours beside a stock class cut down by hand, on whatever device."""

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import StaticCache

from benchmarks.interleaved import Work, interleaved
from benchmarks.record import Figures, Ratio
from harness.bench.inference import synchronise
from harness.models.forward import cache_argument, cache_of

GOAL = "1.02 at most"


class Models(NamedTuple):
    """The pruned model, the one cut down by hand, and a prompt, int64 (batch, tokens)."""

    ours: Any
    cut_down: Any
    prompt: torch.Tensor


def prefill(model: Any, prompt: torch.Tensor) -> Any:
    """Run the prompt, and return what the model returns, with the KV cache."""
    return model(input_ids=prompt, use_cache=True, logits_to_keep=1)


def decode(model: Any, prompt: torch.Tensor, steps: int) -> Work:
    """Return a function that runs a few steps behind the prompt, each time from the same cache."""
    full, name = cache_of(prefill(model, prompt)), cache_argument(model)

    def run() -> None:
        cache = copy.copy(full)
        cache.layers = [copy.copy(layer) for layer in full.layers]  # a step makes new tensors, and changes none
        token = prompt[:, -1:]
        for _ in range(steps):
            token = model(input_ids=token, use_cache=True, **{name: cache}).logits.argmax(-1)

    return run


def decode_compiled(model: Any, prompt: torch.Tensor, steps: int, room: int, **options: Any) -> Work:
    """Return a function that runs a few compiled steps through a static cache, which has `room` for all rounds."""
    name = cache_argument(model)
    cache = StaticCache(config=model.config, max_cache_len=prompt.shape[1] + room)
    model(input_ids=prompt, use_cache=True, logits_to_keep=1, **{name: cache})
    compiled: Any = torch.compile(model.forward, **options)

    def run() -> None:
        token = prompt[:, -1:]
        for _ in range(steps):
            token = compiled(input_ids=token, use_cache=True, **{name: cache}).logits.argmax(-1)

    return run


def compare(
    benchmark: BenchmarkFixture, figures: Figures, what: str, models: Models, make: Callable[[Any], Work], rounds: int,
    *, goal: str = GOAL, clock: Callable[[], float] = time.perf_counter,
) -> list[float]:  # fmt: skip
    """Take up what `make` makes of our model beside the same of the one cut down; return the seconds of ours.

    `clock` as `interleaved` takes it.
    """
    ours, cut_down = (partial(_finished, make(model)) for model in (models.ours, models.cut_down))
    ours()  # the first round of either compiles
    cut_down()
    times, theirs = interleaved(
        benchmark, ours, {"cut down": cut_down}, prepare=lambda: None, rounds=rounds, clock=clock
    )
    figures.add(Ratio.of(what, "cut down by hand", times, theirs["cut down"], goal))
    return times


def _finished(work: Work) -> None:
    work()
    synchronise()
