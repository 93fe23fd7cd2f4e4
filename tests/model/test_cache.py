"""The KV cache of a pruned model: right for every plan, and small where nothing attends."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Cache, DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from harness.models.forward import cache_of, with_cache
from harness.reference.models import identity_reference
from harness.reference.tolerances import assert_logits_close
from harness.strategies import plans, tiny_specs
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from pruning.remote import hollow_modules
from pruning.remote.hollow_modules import record_tokens
from tests.model.conftest import Checkpoints

FULL, SLIDING = "full_attention", "sliding_attention"
WINDOW = 4
LAYERS = 4

# Cases in which a cache can lose count: it asks single slots for its length, its layers are of several classes, and
# all slots of a class can be a pruned attention's.
CASES = {
    "first attention": ("full", PrunePlan(self_attn=[0])),
    "first attention of mixed": ("mixed", PrunePlan(self_attn=[0], mlp=[2])),
    "full first": ((FULL, SLIDING, FULL, SLIDING), PrunePlan(self_attn=[0])),
    "every sliding": ("mixed", PrunePlan(self_attn=[0, 2])),
    "every full": ("mixed", PrunePlan(self_attn=[1, 3])),
    "all but the last": ("full", PrunePlan(self_attn=[0, 1, 2], mlp=[3])),
    "whole layers": ("mixed", PrunePlan(self_attn=[0, 1], mlp=[0, 1])),
    "everything": ("mixed", PrunePlan(self_attn=range(LAYERS), mlp=range(LAYERS))),
}

# Pieces in which the tokens go in: longer and shorter than the window, several and one at a time.
PIECES = (3, 4, 1, 1, 5)

NEW_CACHE: dict[str, Callable[[Any, int], Cache | None]] = {
    "none": lambda config, tokens: None,
    "dynamic": lambda config, tokens: DynamicCache(config=config),
    "dynamic without config": lambda config, tokens: DynamicCache(),
    "static": lambda config, tokens: StaticCache(config=config, max_cache_len=tokens + 2),
}

# Their rows in the table of tolerances.
OPERATION = {kind: "static_cache" if kind == "static" else "cached" for kind in NEW_CACHE}

each_case = pytest.mark.parametrize("case", CASES)
each_cache = pytest.mark.parametrize("kind", NEW_CACHE)


def _spec(case: str) -> TinySpec:
    return TinySpec(layers=LAYERS, layer_types=CASES[case][0], sliding_window=WINDOW)


def _load(checkpoints: Checkpoints, case: str) -> Any:
    return load_pruned(checkpoints(_spec(case), CASES[case][1])[1])


def _tokens(batch: int, length: int, vocabulary: int = 64) -> torch.Tensor:
    """Return ids that are no special tokens, (batch, length)."""
    return torch.randint(3, vocabulary, (batch, length), generator=torch.Generator().manual_seed(length))


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """Return each token's position, counted from the first that is no padding, as `generate` counts."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def _uncached(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model(ids, attention_mask=mask, position_ids=_positions(mask), use_cache=False).logits


@torch.no_grad()
def _cached(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Cache | None, pieces: tuple[int, ...]
) -> tuple[torch.Tensor, Cache]:
    """Return the logits of the pieces, one after the other through one cache, and that cache.

    Positions are left to the model, which asks the cache for them, unless there is padding.
    """
    logits, start = [], cache.get_seq_length() if cache is not None else 0
    for length in pieces:
        end = int(start) + length
        output = model(
            ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=None if mask.all() else _positions(mask)[:, start:end],
            use_cache=True,
            **with_cache(model, cache),
        )
        cache = cache_of(output)
        logits.append(output.logits)
        start = end
    return torch.cat(logits, dim=1), cache


def _assert_same(
    got: torch.Tensor,
    expected: torch.Tensor,
    context: str,
    mask: torch.Tensor | None = None,
    *,
    operation: str = "cached",
) -> None:
    assert_logits_close(got, expected, dtype="float32", operation=operation, context=context, mask=mask)


@each_cache
@each_case
def test_cached_logits_are_the_uncached_ones(checkpoints: Checkpoints, case: str, kind: str) -> None:
    """Prefill, chunks and single steps through any cache give the logits of one pass without a cache."""
    model = _load(checkpoints, case)
    ids = _tokens(2, sum(PIECES))
    mask = torch.ones_like(ids)
    got, _ = _cached(model, ids, mask, NEW_CACHE[kind](model.config, ids.shape[1]), PIECES)
    _assert_same(got, _uncached(model, ids, mask), f"{case}, {kind} cache", operation=OPERATION[kind])


@each_cache
@each_case
def test_left_padding_leaves_the_cache_right(checkpoints: Checkpoints, case: str, kind: str) -> None:
    """A left-padded batch, cached, gives each row the logits that it has alone, uncached and unpadded."""
    model = _load(checkpoints, case)
    ids = _tokens(3, sum(PIECES))
    padding = (0, 2, 5)
    mask = torch.stack([torch.arange(ids.shape[1]) >= columns for columns in padding]).long()
    got, _ = _cached(model, ids, mask, NEW_CACHE[kind](model.config, ids.shape[1]), (7, 1, 1, 5))
    for row, columns in enumerate(padding):
        alone = ids[row : row + 1, columns:]
        expected = _uncached(model, alone, torch.ones_like(alone))
        _assert_same(
            got[row : row + 1, columns:],
            expected,
            f"{case}, {kind} cache, {columns} columns of padding",
            operation="padding",
        )


@settings(max_examples=40)
@given(data=st.data())
def test_any_plan_any_pieces(checkpoints: Checkpoints, data: st.DataObject) -> None:
    """For any model, plan, cache, padding and division into pieces the cached logits are the uncached ones."""
    spec = data.draw(tiny_specs(dtypes=("float32",), max_shards=1))
    plan = data.draw(plans(spec.layers, min_pruned=1))
    kind = data.draw(st.sampled_from(sorted(NEW_CACHE)))
    pieces = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    padding = data.draw(st.integers(0, pieces[0] - 1))
    model = load_pruned(checkpoints(spec, plan)[1])
    ids = _tokens(2, sum(pieces), spec.vocabulary_size)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    got, cache = _cached(model, ids, mask, NEW_CACHE[kind](model.config, ids.shape[1]), pieces)
    context = f"{plan}, {kind} cache, pieces {pieces}, padding {padding}"
    _assert_same(got, _uncached(model, ids, mask), context, mask, operation=OPERATION[kind])
    _assert_small(model, cache, ids.numel())


def _elements(slot: Any) -> int:
    return slot.keys.numel() + slot.values.numel()


def _assert_small(model: Any, cache: Cache, tokens: int) -> None:
    """Check that each pruned attention's slot holds one element a token at most, and the others what they must."""
    head_size = 2 * model.config.num_key_value_heads * model.config.head_dim
    for slot, layer in zip(cache.layers, model.model.layers, strict=True):
        columns = slot.keys.shape[-2]
        held = slot.keys.shape[0] * columns if isinstance(cache, StaticCache) else tokens
        if layer.prune_self_attn:
            assert _elements(slot) <= held
            assert slot.keys.dtype == model.dtype
        else:
            assert _elements(slot) == slot.keys.shape[0] * columns * head_size


@pytest.mark.parametrize("kind", ["none", "dynamic", "static"])
@each_case
def test_a_pruned_attention_costs_one_element_a_token(checkpoints: Checkpoints, case: str, kind: str) -> None:
    """The cache's bytes are the kept attentions' share of an unpruned model's, plus one element a token for each other.

    Dynamic slots count tokens, static ones the length that was asked for, sliding ones the window at most.
    """
    model = _load(checkpoints, case)
    stock = transformers.AutoModelForCausalLM.from_pretrained(checkpoints(_spec(case), CASES[case][1])[0])
    ids = _tokens(2, sum(PIECES))
    caches = [
        _cached(each, ids, torch.ones_like(ids), NEW_CACHE[kind](each.config, ids.shape[1]), PIECES)[1]
        for each in (model, stock)
    ]
    for slot, unpruned, layer in zip(caches[0].layers, caches[1].layers, model.model.layers, strict=True):
        if layer.prune_self_attn:
            assert _elements(slot) == 2 * unpruned.keys.shape[-2]  # the batch has two sequences
        else:
            assert _elements(slot) == _elements(unpruned)
    _assert_small(model, caches[0], ids.numel())


@each_case
def test_a_cache_that_was_allocated_early_is_right_too(checkpoints: Checkpoints, case: str) -> None:
    """A static cache that its user allocated before the first pass, every slot at full width, gives the same logits."""
    model = _load(checkpoints, case)
    ids = _tokens(2, sum(PIECES))
    mask = torch.ones_like(ids)
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1])
    config = model.config
    cache.early_initialization(2, config.num_key_value_heads, config.head_dim, torch.float32, torch.device("cpu"))
    got, _ = _cached(model, ids, mask, cache, PIECES)
    _assert_same(got, _uncached(model, ids, mask), f"{case}, allocated early", operation="static_cache")


@each_case
def test_a_static_cache_can_be_reset(checkpoints: Checkpoints, case: str) -> None:
    """After `reset()` a static cache takes another text and knows nothing of the first."""
    model = _load(checkpoints, case)
    ids = _tokens(2, 2 * sum(PIECES))
    cache: Cache | None = StaticCache(config=model.config, max_cache_len=sum(PIECES))
    for text in ids.split(sum(PIECES), dim=1):
        got, cache = _cached(model, text, torch.ones_like(text), cache, PIECES)
        _assert_same(got, _uncached(model, text, torch.ones_like(text)), f"{case}, reset", operation="static_cache")
        cache.reset()


@pytest.mark.parametrize("case", ["first attention", "all but the last"])
def test_a_cache_can_be_cropped_and_go_on(checkpoints: Checkpoints, case: str) -> None:
    """Cropping a dynamic cache takes tokens back from every slot: other tokens may follow."""
    model = _load(checkpoints, case)
    ids, other = _tokens(2, 9), _tokens(2, 11)
    _, cache = _cached(model, ids, torch.ones_like(ids), DynamicCache(config=model.config), (6, 1, 1, 1))
    cache.crop(-5)
    assert cache.get_seq_length() == 4
    joined = torch.cat([ids[:, :4], other], dim=1)
    got, cache = _cached(model, joined, torch.ones_like(joined), cache, (2, 1, 8))
    _assert_same(got, _uncached(model, joined, torch.ones_like(joined))[:, 4:], f"{case}, cropped")
    assert {slot.keys.shape[-2] for slot in cache.layers} == {joined.shape[1]}


@pytest.mark.parametrize("case", ["first attention", "everything"])
def test_a_cache_can_be_cropped_to_nothing(checkpoints: Checkpoints, case: str) -> None:
    """A dynamic cache from which every token was taken back takes another text, also where its slots were moved."""
    model = _load(checkpoints, case)
    ids, other = _tokens(2, 3), _tokens(2, 7)
    _, cache = _cached(model, ids, torch.ones_like(ids), DynamicCache(config=model.config), (2, 1))
    cache.crop(-3)
    for slot in cache.layers:
        slot.keys, slot.values = slot.keys.clone(), slot.values.clone()  # as by a move: nothing is stored any more
    got, _ = _cached(model, other, torch.ones_like(other), cache, (4, 2, 1))
    _assert_same(got, _uncached(model, other, torch.ones_like(other)), f"{case}, cropped to nothing")


class _CountingCache(DynamicCache):
    """A cache with an `update` of its own, as libraries that compress caches have."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[int, int] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Count the tokens of each layer."""
        self.tokens[layer_idx] = self.tokens.get(layer_idx, 0) + key_states.shape[-2]
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


@each_case
def test_a_cache_with_an_update_of_its_own_sees_every_token(checkpoints: Checkpoints, case: str) -> None:
    """A cache that overrides `update` is asked to for every token of every layer, pruned or not."""
    model = _load(checkpoints, case)
    ids = _tokens(2, sum(PIECES))
    cache = _CountingCache()
    got, _ = _cached(model, ids, torch.ones_like(ids), cache, PIECES)
    assert cache.tokens == dict.fromkeys(range(LAYERS), ids.shape[1])
    _assert_same(got, _uncached(model, ids, torch.ones_like(ids)), f"{case}, update of its own")


def test_a_slot_that_others_filled_keeps_what_it_holds() -> None:
    """A slot that the unpruned model filled, with a single key-value head, keeps its keys and values, and grows."""
    cache, keys, values = DynamicCache(), torch.rand(2, 1, 3, 8), torch.rand(2, 1, 3, 8)
    cache.update(keys, values, 0)
    record_tokens(cache, torch.zeros(2, 1, 8), 0)
    slot = cache.layers[0]
    assert slot.keys.shape == slot.values.shape == (2, 1, 4, 8)
    assert torch.equal(slot.keys[:, :, :3], keys)
    assert torch.equal(slot.values[:, :, :3], values)


def test_another_batch_is_refused() -> None:
    """A slot of two rows takes no tokens of three, as that of an attention would not."""
    cache = DynamicCache()
    record_tokens(cache, torch.zeros(2, 3, 8), 0)
    with pytest.raises(RuntimeError, match="must match"):
        record_tokens(cache, torch.zeros(3, 1, 8), 0)


@each_case
def test_rows_of_a_cache_can_be_picked_and_repeated(checkpoints: Checkpoints, case: str) -> None:
    """A dynamic cache whose rows were reordered, repeated and picked, as searches do, goes on with those rows."""
    model = _load(checkpoints, case)
    ids = _tokens(3, 9)
    _, cache = _cached(model, ids[:, :6], torch.ones(3, 6).long(), DynamicCache(config=model.config), (5, 1))
    cache.reorder_cache(torch.tensor([2, 0, 1]))
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3, 5]))
    rows = torch.stack([ids[2], ids[0], ids[1]])
    got, _ = _cached(model, rows, torch.ones_like(rows), cache, (1, 2))
    _assert_same(got, _uncached(model, rows, torch.ones_like(rows))[:, 6:], f"{case}, rows picked")


# What `generate` can be asked for, as far as the unpruned model can do it in the version at hand.
GENERATE: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "static": {"cache_implementation": "static"},
    "static beams": {"num_beams": 2, "cache_implementation": "static"},
    "chunked": {"prefill_chunk_size": 3},
    "chunked static": {"prefill_chunk_size": 3, "cache_implementation": "static"},
    "several samples": {"num_return_sequences": 3, "do_sample": True},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
}


def _generated(model: Any, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
    """Return what `generate` returns, or the error that it raises."""
    torch.manual_seed(0)
    try:
        return model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=7,
            eos_token_id=-1,  # which no token is: each row goes on to the end
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
    except (ValueError, IndexError) as error:
        return error


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "left-padded"])
@pytest.mark.parametrize("way", GENERATE)
@pytest.mark.parametrize("case", ["first attention", "first attention of mixed", "every full", "everything"])
def test_generate_is_the_reference_s(checkpoints: Checkpoints, case: str, way: str, padded: bool) -> None:
    """`generate` gives the tokens and logits of the identity reference, or refuses in the reference's words.

    transformers itself cannot do all of it in every version: 5.0.0 refuses chunks, 5.0.0 and 4.57.6 to take tokens
    back from a full sliding window, and 4.57.6 misplaces padded chunks. The reference, a stock model, does alike.
    """
    base, pruned = checkpoints(_spec(case), CASES[case][1])
    plan = CASES[case][1]
    ids = _tokens(1 if way == "prompt lookup" else 2, 8)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, :3] = 0
    got, expected = (
        _generated(model, ids, mask, **GENERATE[way])
        for model in (load_pruned(pruned), identity_reference(base, plan.self_attn, plan.mlp))
    )
    if isinstance(expected, Exception):
        assert repr(got) == repr(expected)
        return
    assert torch.equal(got.sequences, expected.sequences)
    _assert_same(
        torch.stack(got.logits, 1), torch.stack(expected.logits, 1), f"{case}, generate {way}", operation="reference"
    )


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@each_case
def test_a_second_turn_continues_the_first_one_s_cache(checkpoints: Checkpoints, case: str, kind: str) -> None:
    """A conversation's second turn through the first one's cache gives the tokens and logits of a fresh start."""
    model = _load(checkpoints, case)
    first, said = _tokens(1, 7), _tokens(1, 5)
    cache = NEW_CACHE[kind](model.config, 30)
    answer = _generated(model, first, torch.ones_like(first), **with_cache(model, cache)).sequences
    second = torch.cat([answer, said], dim=1)
    got = _generated(model, second, torch.ones_like(second), **with_cache(model, cache))
    expected = _generated(model, second, torch.ones_like(second), use_cache=False)
    assert torch.equal(got.sequences, expected.sequences)
    _assert_same(
        torch.stack(got.logits, 1),
        torch.stack(expected.logits, 1),
        f"{case}, second turn, {kind} cache",
        operation=OPERATION[kind],
    )


# Where no attention is left, no logit depends on a cache.
@each_cache
@pytest.mark.parametrize("case", [case for case in CASES if 0 in CASES[case][1].self_attn and case != "everything"])
def test_a_layer_that_does_not_record_its_tokens_is_caught(
    checkpoints: Checkpoints, case: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: where the first layer's pruned attention leaves its slot empty, the check of cached logits fails."""
    monkeypatch.setattr(hollow_modules, "record_tokens", lambda *args: None)
    with pytest.raises((AssertionError, RuntimeError)):
        test_cached_logits_are_the_uncached_ones(checkpoints, case, kind)


class _Grouped(DynamicLayer):
    """A slot that takes keys and values in groups of 32 elements alone, as those do that quantise what they hold."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append keys and values; raises ValueError where they do not fill groups."""
        if any(states.shape[-1] == 0 or states.shape[-1] % 32 for states in (key_states, value_states)):
            raise ValueError("groups of 32 elements are not filled")
        return super().update(key_states, value_states, *args, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize("plan", [PrunePlan(self_attn=[0]), PrunePlan(self_attn=[0, 1, 3], mlp=[0, 1])], ids=str)
def test_a_cache_that_quantises(plan: PrunePlan, checkpoints: Checkpoints) -> None:
    """Slots that take groups of elements get no marks: a pruned attention's tokens are counted all the same."""
    base, pruned = checkpoints(TinySpec(layers=LAYERS), plan)
    ours, ids = load_pruned(pruned), _tokens(2, 14)
    expected = _uncached(identity_reference(base, plan.self_attn, plan.mlp), ids, torch.ones_like(ids))
    cache = Cache(layers=[_Grouped() for _ in range(LAYERS)])
    got, start = [], 0
    for length in PIECES:
        got.append(ours(ids[:, start : start + length], use_cache=True, **with_cache(ours, cache)).logits)
        start += length
    assert_logits_close(torch.cat(got, dim=1), expected, dtype="float32", operation="cached", context="grouped")
    assert cache.get_seq_length() == 14
