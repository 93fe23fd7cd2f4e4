"""Inference: prefill and decoding beside a stock class cut down by hand, in eager mode and compiled.

A step of narrow layers hardly computes anything: what it takes is Python, as on a GPU, which is faster than Python can
tell it what to do.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cut_down import cut_down_model
from benchmarks.generation import Models, compare, decode, decode_compiled, prefill
from benchmarks.interleaved import Work
from benchmarks.record import Amount, Figures
from harness.bench.inference import cache_bytes
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint

PROMPT, STEPS = 128, 8
ROUNDS = 4  # of each that are asked for: one takes less than a second
ROOM = 1024  # tokens
# Layers as wide as those of Qwen3-0.6B, fewer of them; half of the attentions and a quarter of the mlps are pruned.
SPEC = TinySpec(
    layers=12, hidden_size=1024, intermediate_size=3072, heads=16, key_value_heads=8, head_dim=128, vocabulary_size=8192
)
PLAN = PrunePlan(self_attn=(0, 2, 4, 6, 8, 10), mlp=(3, 6, 9))
# As many layers as Qwen3-8B has, a quarter of their attentions and mlps pruned, as in `test_gpu.py`.
NARROW = TinySpec(layers=36, hidden_size=64, intermediate_size=128, heads=4, key_value_heads=2, head_dim=16)
NARROW_PLAN = PrunePlan(self_attn=tuple(range(0, 18, 2)), mlp=tuple(range(19, 36, 2)))


def _models(folder: Path, spec: TinySpec, plan: PrunePlan) -> Models:
    """Return both models, after a look whether they compute the same."""
    base, pruned = write_tiny_checkpoint(spec, folder / "base"), folder / "pruned"
    prune_checkpoint(base, pruned, plan, sync=False)
    prompt = torch.randint(0, spec.vocabulary_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    ours = load_pruned(pruned, dtype=torch.float32).eval()
    cut_down = cut_down_model(base, pruned, plan, torch.float32)
    with torch.no_grad():
        expected, got = (model(input_ids=prompt, use_cache=False).logits for model in (cut_down, ours))
    assert torch.equal(got, expected)
    return Models(ours, cut_down, prompt)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Iterator[Models]:
    """Yield the models whose steps compute."""
    figures.subject = (
        f"{SPEC.layers} layers as wide as those of Qwen3-0.6B, float32, {len(PLAN.self_attn)} attentions and "
        f"{len(PLAN.mlp)} mlps pruned; a prompt of {PROMPT} tokens, {STEPS} steps behind it; "
        f"{torch.get_num_threads()} threads. Narrow: {NARROW.layers} layers of hidden size {NARROW.hidden_size}, "
        f"{len(NARROW_PLAN.self_attn)} attentions and {len(NARROW_PLAN.mlp)} mlps pruned."
    )
    with torch.no_grad():
        yield _models(tmp_path_factory.mktemp("inference"), SPEC, PLAN)


@pytest.fixture(scope="module")
def narrow_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Yield the models whose steps are Python's.

    Copied, so that the objects of both lie alike: where a load has put them was seen to move such a step by 3 %.
    """
    ours, cut_down, prompt = _models(tmp_path_factory.mktemp("narrow"), NARROW, NARROW_PLAN)
    with torch.no_grad():
        yield Models(copy.deepcopy(ours), copy.deepcopy(cut_down), prompt)


# torch 2.13.0 uses what it deprecates itself, when its compiler is first loaded.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_prefill(benchmark: BenchmarkFixture, models: Models, figures: Figures, rounds: int, how: str) -> None:
    """A prompt takes as long as in the model that never had what is pruned."""

    def make(model: Any) -> Work:
        run = model if how == "eager" else torch.compile(model.forward)
        return lambda: prefill(run, models.prompt)

    compare(benchmark, figures, f"prefill, {how}", models, make, ROUNDS * rounds)


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_decode(benchmark: BenchmarkFixture, models: Models, figures: Figures, rounds: int, how: str) -> None:
    """A step behind a prompt takes as long as in the model that never had what is pruned."""

    def make(model: Any) -> Work:
        if how == "eager":
            return decode(model, models.prompt, STEPS)
        return decode_compiled(model, models.prompt, STEPS, ROOM)

    compare(benchmark, figures, f"decoding, {how}", models, make, ROUNDS * rounds)


def test_decode_narrow(benchmark: BenchmarkFixture, narrow_models: Models, figures: Figures, rounds: int) -> None:
    """A step takes as long for Python as that of the model that never had what is pruned."""
    compare(
        benchmark, figures, "decoding, eager, narrow", narrow_models,
        lambda model: decode(model, narrow_models.prompt, STEPS), 4 * ROUNDS * rounds,
    )  # fmt: skip


def test_cache_bytes(models: Models, figures: Figures) -> None:
    """A token costs the kept attentions' share of the KV cache, and one element for each pruned attention."""
    ours, cut_down = (cache_bytes(prefill(model, models.prompt).past_key_values) for model in models[:2])
    assert ours is not None
    assert cut_down is not None
    assert ours - cut_down == len(PLAN.self_attn) * PROMPT * torch.float32.itemsize
    figures.add(
        Amount.of(
            "KV cache a token",
            [ours / PROMPT],
            "B",
            f"{cut_down / PROMPT:.0f} B, and an element of 4 B for each pruned attention",
        )
    )
