"""Hypothesis strategies for what the harness is judged on: plans, tiny checkpoints, their configs, batches of tokens.

Each describes the valid values, never a distribution; bounds are keywords. A request that no value can meet raises
at once, where the strategy is built, and not in the middle of a test.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, TypedDict, Unpack

import torch
from hypothesis import assume, note
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from harness.testing.cases import PrunedCase
from pruning import PrunePlan

from .tiny import PAD_TOKEN_ID, LayerType, TinySpec, config_dict

Dtype = Literal["float32", "bfloat16"]


class SpecBounds(TypedDict, total=False):
    """The keywords of `tiny_specs`, for the strategies that are made of it."""

    min_layers: int
    max_layers: int
    max_shards: int
    dtypes: Sequence[Dtype]
    sliding: bool
    quantisable: bool


# A sub-layer is pruned if its number in 0 to _HIGHEST exceeds a threshold, which alone sets how dense a plan is.
_HIGHEST: Final = 31
# The densest is first, hence the simplest to Hypothesis: whichever plan fails, the shrinker may lower the threshold and
# can then take sub-layers out one by one, down to the smallest plan that fails.
_THRESHOLDS: Final = (0, 15, 25)
_MAX_LAYERS: Final = 4


def plans(num_hidden_layers: int, *, min_pruned: int = 0) -> SearchStrategy[PrunePlan]:
    """Plans for a decoder of `num_hidden_layers` layers that prune at least `min_pruned` sub-layers.

    Nothing pruned is the simplest plan, everything pruned is common. A failing plan shrinks to one that no longer
    fails when any single sub-layer is taken out.

    Raises:
        ValueError: No plan can be drawn within these bounds.
    """
    _require(num_hidden_layers >= 1, "at least 1", num_hidden_layers=num_hidden_layers)
    _require(
        0 <= min_pruned <= 2 * num_hidden_layers,
        f"in 0 to {2 * num_hidden_layers}, two sub-layers a layer",
        min_pruned=min_pruned,
    )
    drawn = _plans(num_hidden_layers)
    if min_pruned == 0:
        return drawn
    return drawn.filter(lambda plan: len(plan.sublayers) >= min_pruned)


@st.composite
def _plans(draw: DrawFn, num_hidden_layers: int) -> PrunePlan:
    threshold = draw(st.sampled_from(_THRESHOLDS))
    numbers = st.integers(0, _HIGHEST)
    self_attn = tuple(index for index in range(num_hidden_layers) if draw(numbers) > threshold)
    mlp = tuple(index for index in range(num_hidden_layers) if draw(numbers) > threshold)
    return PrunePlan(self_attn=self_attn, mlp=mlp)


def tiny_specs(
    *,
    min_layers: int = 1,
    max_layers: int = _MAX_LAYERS,
    max_shards: int = 3,
    dtypes: Sequence[Dtype] = ("float32", "bfloat16"),
    sliding: bool = True,
    quantisable: bool = False,
) -> SearchStrategy[TinySpec]:
    """Specs of tiny Qwen3 checkpoints, from one layer, one head and full attention on.

    Query width (`heads * head_dim`) and hidden size are drawn apart from each other. With `sliding`, the layers are
    of any mixture of sliding and full attention; with `quantisable`, `harness.tiny.quantisable` holds for each spec.

    Raises:
        ValueError: No spec can be drawn within these bounds.
    """
    _require(min_layers >= 1, "at least 1", min_layers=min_layers)
    _require(max_layers >= min_layers, f"at least min_layers={min_layers!r}", max_layers=max_layers)
    _require(max_shards >= 1, "at least 1", max_shards=max_shards)
    known = ("float32", "bfloat16")
    _require(bool(dtypes) and set(dtypes) <= set(known), f"one or several of {known}", dtypes=dtypes)
    return _tiny_specs(st.integers(min_layers, max_layers), max_shards, tuple(dtypes), sliding, quantisable)


@st.composite
def _tiny_specs(
    draw: DrawFn,
    layer_counts: SearchStrategy[int],
    max_shards: int,
    dtypes: tuple[Dtype, ...],
    sliding: bool,
    quantisable: bool,
) -> TinySpec:
    layers = draw(layer_counts)
    key_value_heads = draw(st.integers(1, 2))
    types: tuple[LayerType, ...] = ("full_attention", "sliding_attention") if sliding else ("full_attention",)
    layer_types = draw(st.lists(st.sampled_from(types), min_size=layers, max_size=layers))
    return TinySpec(
        layers=layers,
        hidden_size=draw(st.sampled_from((64, 128) if quantisable else (16, 24, 32, 64))),
        heads=key_value_heads * draw(st.integers(1, 3)),
        key_value_heads=key_value_heads,
        head_dim=draw(st.sampled_from((64,) if quantisable else (8, 16, 6, 32))),
        intermediate_size=draw(st.sampled_from((64, 128) if quantisable else (16, 40, 64))),
        vocabulary_size=draw(st.integers(16, 64)),
        tied=draw(st.booleans()),
        layer_types=tuple(layer_types),
        sliding_window=draw(st.integers(2, 8)),
        dtype=draw(st.sampled_from(dtypes)),
        rope_theta=draw(st.sampled_from((500.0, 100_000.0, 1_000_000.0))),
        rms_norm_eps=draw(st.sampled_from((1e-3, 1e-5))),
        attention_bias=draw(st.booleans()),
        shards=draw(st.integers(1, max_shards)),
        seed=draw(st.integers(0, 2**16)),
    )


def configurations(**bounds: Unpack[SpecBounds]) -> SearchStrategy[dict[str, object]]:
    """Contents of the `config.json` of tiny Qwen3 checkpoints, a new dict each; the keywords are those of `tiny_specs`.

    Raises:
        ValueError: No configuration can be drawn within these bounds.
    """
    return tiny_specs(**bounds).map(config_dict)


def checkpoints(*, min_pruned: int = 0, **bounds: Unpack[SpecBounds]) -> SearchStrategy[PrunedCase]:
    """Tiny checkpoints, each with a plan that prunes at least `min_pruned` sub-layers; see `plans` and `tiny_specs`.

    Nothing is on disk until `PrunedCase.write` is called, with a directory for each example alone. A test that fails
    prints, beside the smallest case, its plan, its configuration, and the Python that makes it again.

    Raises:
        ValueError: No case can be drawn within these bounds.
    """
    specs = tiny_specs(**bounds)
    plans(bounds.get("min_layers", 1), min_pruned=min_pruned)  # for what it refuses: every spec must have such a plan
    return _checkpoints(specs, bounds.get("max_layers", _MAX_LAYERS), min_pruned)


@st.composite
def _checkpoints(draw: DrawFn, specs: SearchStrategy[TinySpec], max_layers: int, min_pruned: int) -> PrunedCase:
    # The plan is drawn first, for as many layers as there may be: then the shrinker can take away layers of the spec
    # without another plan coming of it.
    widest = draw(_plans(max_layers))
    spec = draw(specs)
    plan = PrunePlan(
        self_attn=tuple(layer_idx for layer_idx in widest.self_attn if layer_idx < spec.layers),
        mlp=tuple(layer_idx for layer_idx in widest.mlp if layer_idx < spec.layers),
    )
    assume(len(plan.sublayers) >= min_pruned)
    case = PrunedCase(spec, plan)
    note(f"plan: {case.plan}\nconfiguration: {config_dict(spec)}\nto make it again:\n\n{case.snippet()}")
    return case


def token_batches(
    vocabulary_size: int,
    *,
    min_batch: int = 1,
    max_batch: int = 3,
    min_tokens: int = 1,
    max_tokens: int = 12,
    left_padding: bool = True,
) -> SearchStrategy[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs `(input_ids, attention_mask)`, both int64 (batch, tokens), the mask 0 for padding and 1 for tokens.

    With `left_padding` some rows begin with padding (`PAD_TOKEN_ID`); each holds one token at least.

    Raises:
        ValueError: No batch can be drawn within these bounds.
    """
    _require(vocabulary_size >= 1, "at least 1", vocabulary_size=vocabulary_size)
    _require(min_batch >= 1, "at least 1", min_batch=min_batch)
    _require(max_batch >= min_batch, f"at least min_batch={min_batch!r}", max_batch=max_batch)
    _require(min_tokens >= 1, "at least 1", min_tokens=min_tokens)
    _require(max_tokens >= min_tokens, f"at least min_tokens={min_tokens!r}", max_tokens=max_tokens)
    return _token_batches(
        vocabulary_size, st.integers(min_batch, max_batch), st.integers(min_tokens, max_tokens), left_padding
    )


@st.composite
def _token_batches(
    draw: DrawFn,
    vocabulary_size: int,
    batch_sizes: SearchStrategy[int],
    widths: SearchStrategy[int],
    left_padding: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, width = draw(batch_sizes), draw(widths)
    ids, mask = [], []
    for _ in range(batch):
        padding = draw(st.integers(0, width - 1)) if left_padding else 0
        tokens = draw(st.lists(st.integers(0, vocabulary_size - 1), min_size=width - padding, max_size=width - padding))
        ids.append([PAD_TOKEN_ID] * padding + tokens)
        mask.append([0] * padding + [1] * len(tokens))
    return torch.tensor(ids), torch.tensor(mask)


def _require(holds: bool, expected: str, **value: int | Collection[str]) -> None:
    """Refuse the one `value` with its name unless the bound holds."""
    if not holds:
        ((name, got),) = value.items()
        raise ValueError(f"{name} must be {expected}, but got {name}={got!r}")
