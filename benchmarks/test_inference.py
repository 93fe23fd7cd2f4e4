"""Inference: prefill and decoding beside decoder layers cut down by hand, in eager mode and compiled.

One thread, and the processor's time of this process: other programs that run meanwhile hardly count. A step of narrow
layers hardly computes anything: what it takes is Python, as on a GPU, which is faster than Python can tell it what to
do.
"""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cut_down import cut_down_model
from benchmarks.generation import Models, compare, decode, decode_compiled, prefill
from benchmarks.interleaved import Work
from benchmarks.record import Amount, Figures
from harness.bench.inference import cache_bytes
from harness.models.forward import cache_of
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint

CLOCK = time.process_time
PROMPT, STEPS = 128, 4
ROUNDS = 4  # of each that are asked for: one takes less than a second
ROOM = 1024  # tokens
# Layers as wide as those of Qwen3-0.6B, the narrowest there is, but fewer of them.
SPEC = TinySpec(
    layers=12, hidden_size=1024, intermediate_size=3072, heads=16, key_value_heads=8, head_dim=128, vocabulary_size=8192
)
# As many layers as Qwen3-8B has.
NARROW = TinySpec(layers=36, hidden_size=64, intermediate_size=128, heads=4, key_value_heads=2, head_dim=16)
KINDS = ("attentions", "mlps", "whole layers")


def _plan(kind: str, spec: TinySpec) -> PrunePlan:
    """Return the plan that prunes every second attention, mlp or layer, the first one included."""
    every_second = tuple(range(0, spec.layers, 2))
    return PrunePlan(self_attn=() if kind == "mlps" else every_second, mlp=() if kind == "attentions" else every_second)


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


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What is pruned."""
    return str(request.param)


@pytest.fixture(scope="module")
def models(kind: str, tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Iterator[Models]:
    """Yield the models whose steps compute."""
    figures.subject = (
        f"{SPEC.layers} layers as wide as those of Qwen3-0.6B, float32, every second attention, mlp or layer pruned; "
        f"a prompt of {PROMPT} tokens, {STEPS} steps behind it; {torch.get_num_threads()} threads, and the "
        f"processor's time. Narrow: {NARROW.layers} layers of hidden size {NARROW.hidden_size}. transformers "
        f"{transformers.__version__}, torch {torch.__version__}."
    )
    with torch.no_grad():
        yield _models(tmp_path_factory.mktemp("inference"), SPEC, _plan(kind, SPEC))


@pytest.fixture(scope="module")
def narrow_models(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """Yield the models whose steps are Python's.

    Copied, so that the objects of both lie alike: where a load has put them was seen to move such a step by 3 %.
    """
    ours, cut_down, prompt = _models(tmp_path_factory.mktemp("narrow"), NARROW, _plan(kind, NARROW))
    with torch.no_grad():
        yield Models(copy.deepcopy(ours), copy.deepcopy(cut_down), prompt)


pytestmark = [
    # torch 2.13.0 uses what it deprecates itself, when its compiler is first loaded.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.benchmark(timer=CLOCK),
]


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_prefill(
    benchmark: BenchmarkFixture, models: Models, figures: Figures, rounds: int, kind: str, how: str
) -> None:
    """A prompt takes as long as in the model that never had what is pruned."""

    def make(model: Any) -> Work:
        run = model if how == "eager" else torch.compile(model.forward)
        return lambda: prefill(run, models.prompt)

    compare(benchmark, figures, f"prefill, {how}, without {kind}", models, make, ROUNDS * rounds, clock=CLOCK)


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_decode(
    benchmark: BenchmarkFixture, models: Models, figures: Figures, rounds: int, kind: str, how: str
) -> None:
    """A step behind a prompt takes as long as in the model that never had what is pruned."""

    def make(model: Any) -> Work:
        if how == "eager":
            return decode(model, models.prompt, STEPS)
        return decode_compiled(model, models.prompt, STEPS, ROOM)

    compare(benchmark, figures, f"decoding, {how}, without {kind}", models, make, ROUNDS * rounds, clock=CLOCK)


def test_decode_narrow(
    benchmark: BenchmarkFixture, narrow_models: Models, figures: Figures, rounds: int, kind: str
) -> None:
    """A step of very narrow layers shows what a pruned sub-layer costs in Python; no goal is set for it."""
    compare(
        benchmark, figures, f"decoding, eager, narrow, without {kind}", narrow_models,
        lambda model: decode(model, narrow_models.prompt, STEPS), 2 * ROUNDS * rounds, goal="", clock=CLOCK,
    )  # fmt: skip


def test_cache_bytes(models: Models, figures: Figures, kind: str) -> None:
    """A token costs the kept attentions' share of the KV cache, and one element for each pruned attention."""
    ours, cut_down = (cache_bytes(cache_of(prefill(model, models.prompt))) for model in models[:2])
    assert ours is not None
    assert cut_down is not None
    assert ours - cut_down == len(_plan(kind, SPEC).self_attn) * PROMPT * torch.float32.itemsize
    figures.add(
        Amount.of(
            f"KV cache a token, without {kind}",
            [ours / PROMPT],
            "B",
            f"{cut_down / PROMPT:.0f} B, and an element of 4 B for each pruned attention",
        )
    )
