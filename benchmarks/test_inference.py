"""Inference: prefill and decoding beside a stock class cut down by hand, in eager mode and compiled."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import StaticCache

from benchmarks.cut_down import cut_down_model
from benchmarks.interleaved import Work, interleaved
from benchmarks.record import Amount, Figures, Ratio
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint

PROMPT, STEPS = 128, 8
ROUNDS = 4  # of each that are asked for: one takes less than a second
ROOM = 1024  # tokens
GOAL = "1.02 at most"
# Layers as wide as those of Qwen3-0.6B, fewer of them; half of the attentions and a quarter of the mlps are pruned.
SPEC = TinySpec(
    layers=12, hidden_size=1024, intermediate_size=3072, heads=16, key_value_heads=8, head_dim=128, vocabulary_size=8192
)
PLAN = PrunePlan(self_attn=(0, 2, 4, 6, 8, 10), mlp=(3, 6, 9))


class Models(NamedTuple):
    """The pruned model, the one cut down by hand, and a prompt, int64 (1, tokens)."""

    ours: Any
    cut_down: Any
    prompt: torch.Tensor


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Iterator[Models]:
    """Yield both models, which compute the same."""
    figures.subject = (
        f"{SPEC.layers} layers as wide as those of Qwen3-0.6B, float32, {len(PLAN.self_attn)} attentions and "
        f"{len(PLAN.mlp)} mlps pruned; a prompt of {PROMPT} tokens, {STEPS} steps behind it; "
        f"{torch.get_num_threads()} threads."
    )
    folder: Path = tmp_path_factory.mktemp("inference")
    base, pruned = write_tiny_checkpoint(SPEC, folder / "base"), folder / "pruned"
    prune_checkpoint(base, pruned, PLAN, sync=False)
    prompt = torch.randint(0, SPEC.vocabulary_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    ours = load_pruned(pruned, dtype=torch.float32).eval()
    cut_down = cut_down_model(base, pruned, PLAN, torch.float32)
    with torch.no_grad():
        expected, got = (model(input_ids=prompt, use_cache=False).logits for model in (cut_down, ours))
        assert torch.equal(got, expected)
        yield Models(ours, cut_down, prompt)


def _prefill(model: Any, prompt: torch.Tensor) -> Any:
    return model(input_ids=prompt, use_cache=True, logits_to_keep=1)


def _decode(model: Any, prompt: torch.Tensor) -> Any:
    """Return a function that runs a few steps behind the prompt, each time from the same cache."""
    full = _prefill(model, prompt).past_key_values

    def steps() -> None:
        cache = copy.copy(full)
        cache.layers = [copy.copy(layer) for layer in full.layers]  # a step makes new tensors, and changes none
        token = prompt[:, -1:]
        for _ in range(STEPS):
            token = model(input_ids=token, past_key_values=cache, use_cache=True).logits.argmax(-1)

    return steps


def _decode_compiled(model: Any, prompt: torch.Tensor) -> Any:
    """Return a function that runs a few compiled steps through a static cache, which has room for all rounds."""
    cache = StaticCache(config=model.config, max_cache_len=PROMPT + ROOM)
    model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    compiled: Any = torch.compile(model.forward)

    def steps() -> None:
        token = prompt[:, -1:]
        for _ in range(STEPS):
            token = compiled(input_ids=token, past_key_values=cache, use_cache=True).logits.argmax(-1)

    return steps


# torch 2.13.0 uses what it deprecates itself, when its compiler is first loaded.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

Compare = Callable[[str, Work, Work], None]


@pytest.fixture
def compare(benchmark: BenchmarkFixture, figures: Figures, rounds: int) -> Compare:
    """Return a function that measures our model beside the one that was cut down."""

    def measure(what: str, ours: Work, cut_down: Work) -> None:
        ours()  # the first round of either compiles
        cut_down()
        times, theirs = interleaved(
            benchmark, ours, {"cut down": cut_down}, prepare=lambda: None, rounds=ROUNDS * rounds
        )
        figures.add(Ratio.of(what, "cut down by hand", times, theirs["cut down"], GOAL))

    return measure


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_prefill(compare: Compare, models: Models, how: str) -> None:
    """A prompt takes as long as in the model that never had what is pruned."""
    ours, cut_down = (
        model if how == "eager" else torch.compile(model.forward) for model in (models.ours, models.cut_down)
    )
    compare(f"prefill, {how}", lambda: _prefill(ours, models.prompt), lambda: _prefill(cut_down, models.prompt))


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_decode(compare: Compare, models: Models, how: str) -> None:
    """A step behind a prompt takes as long as in the model that never had what is pruned."""
    decode = _decode if how == "eager" else _decode_compiled
    compare(f"decoding, {how}", decode(models.ours, models.prompt), decode(models.cut_down, models.prompt))


def test_cache_bytes(models: Models, figures: Figures) -> None:
    """A token costs the kept attentions' share of the KV cache, and one element for each pruned attention."""
    ours, cut_down = (_bytes(_prefill(model, models.prompt).past_key_values) for model in models[:2])
    assert ours - cut_down == len(PLAN.self_attn) * PROMPT * torch.float32.itemsize
    figures.add(
        Amount.of(
            "KV cache a token",
            [ours / PROMPT],
            "B",
            f"{cut_down / PROMPT:.0f} B, and an element of 4 B for each pruned attention",
        )
    )


def _bytes(cache: Any) -> int:
    tensors = (tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
