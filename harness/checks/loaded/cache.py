"""The KV cache: through every kind of cache, and in every way of using it, the logits are the reference's.

| | one step at a time | chunked prefill | long | reused | beam | left-padded |
|---|---|---|---|---|---|---|
| dynamic | yes | yes | yes | yes | yes | yes |
| static | yes | yes | yes | yes | yes | yes |
| none | yes | | | | yes | yes |

What is fed in pieces is compared with the reference fed in the same pieces, in every precision. What `generate` does
by itself is compared, in plain float32, with the reference's logits of the same tokens without a cache. Before either,
the reference itself must pass the same test: see `reference_exam`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from harness.checks.check import FaultFound, Numbers
from harness.checks.explain.cache import Observe, cache_differs
from harness.errors import NotChecked
from harness.models.batches import random_ids
from harness.models.forward import NEW_CACHE, TokenBatch, cached_logits, unpadded
from harness.models.generation import generated_steps, with_new_tokens
from harness.models.self_agreement import Observed
from harness.models.session import Session
from harness.reference.tolerances import assert_logits_close, tolerance

from .candidate import candidate_runs
from .logits import operation_of
from .reference_exam import reference_observed
from .repetition import compares_passes

KINDS: Final = ("dynamic", "static", "none")
_NEW_TOKENS: Final = 4
_TOKENS: Final = 14  # all at once; in tiny models longer than the sliding window
_LONG: Final = 96


def _batch(session: Session, use: str) -> TokenBatch:
    if use == "long":
        return unpadded(random_ids(session.subject.config, 2, _long_tokens(session)))
    ids = random_ids(session.subject.config, 2, _TOKENS, seed=2)
    if use not in _PADDED:
        return unpadded(ids)
    return TokenBatch(ids, torch.stack([torch.arange(_TOKENS) >= padding for padding in (0, 4)]).long())


def _long_tokens(session: Session) -> int:
    longest = session.subject.config.get("max_position_embeddings")
    return min(_LONG, int(longest)) if longest else _LONG


def _in_pieces(model: Any, kind: str, batch: TokenBatch, pieces: Sequence[int]) -> list[Observed]:
    tokens = batch.ids.shape[1]
    return [Observed(batch, cached_logits(model, batch, NEW_CACHE[kind](model, tokens), pieces)[0])]


def _long(model: Any, kind: str, batch: TokenBatch) -> list[Observed]:
    """Return the logits of a long prompt, of a long piece after it, and of single tokens."""
    tokens, single = batch.ids.shape[1], 5
    prompt = tokens * 6 // 10
    return _in_pieces(model, kind, batch, (prompt, tokens - prompt - single, *[1] * single))


def _reused(model: Any, kind: str, batch: TokenBatch) -> list[Observed]:
    """Return the logits of two different continuations of one cache, each a turn of several tokens and single ones."""
    first, cache = cached_logits(model, batch, NEW_CACHE[kind](model, _TOKENS), (5, 1))
    other = TokenBatch(torch.cat([batch.ids[:, :6], batch.ids[:, 6:].flip(-1)], dim=1), batch.mask)
    observed = []
    for each in (batch, other):
        turn, _ = cached_logits(model, each, copy.deepcopy(cache), (_TOKENS - 6 - 2, 1, 1), start=6)
        observed.append(Observed(each, torch.cat([first, turn], dim=1)))
    return observed


_PIECEWISE: Final[dict[str, Callable[[Any, str, TokenBatch], list[Observed]]]] = {
    "one-step-at-a-time": lambda model, kind, batch: _in_pieces(model, kind, batch, (_TOKENS - 5, 1, 1, 1, 1, 1)),
    "chunked-prefill": lambda model, kind, batch: _in_pieces(model, kind, batch, (3, 4, 5, 1, 1)),
    "long": _long,
    "reused": _reused,
    "left-padded": lambda model, kind, batch: _in_pieces(model, kind, batch, (_TOKENS - 5, 1, 1, 1, 2)),
}
_WITHOUT_HOOKS: Final = ("plain", "gpu", "given")
_PADDED: Final = ("left-padded", "beam")
_GENERATED: Final = {"one-step-at-a-time": 1, "left-padded": 1, "beam": 3}  # with how many beams
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "dynamic": {}, "static": {"cache_implementation": "static"}, "none": {"use_cache": False},
}  # fmt: skip

USES: Final = (*_PIECEWISE, "beam")


@compares_passes
def cache(session: Session, kind: str, use: str) -> Numbers:
    """Through this kind of cache, used in this way, the logits are the reference's."""
    if kind == "none" and use not in _GENERATED:
        raise NotChecked("without a cache there is nothing to fill in chunks or to use again")
    numbers: dict[str, float] = {}
    if kind != "none" and use in _PIECEWISE:
        numbers |= _check_pieces(session, kind, use)
    # What `generate` adds to single steps is its own, and the same wherever the weights lie.
    if use in _GENERATED and session.mode.precision == "float32" and session.mode.place in _WITHOUT_HOOKS:
        numbers |= _check_generated(session, kind, use)
    if not numbers:
        raise NotChecked(f"what generate does with {kind} caches is compared in float32 alone")
    return numbers


def _check_pieces(session: Session, kind: str, use: str) -> dict[str, float]:
    batch = _batch(session, use)

    def observe(model: Any, tokens: TokenBatch = batch) -> list[Observed]:
        return _PIECEWISE[use](model, kind, tokens)

    expected = reference_observed(session, observe, f"through a {kind} cache ({use})", _operation(kind))
    with candidate_runs(session, cached=True, batch=batch):
        got = observe(session.model)
    how = "the reference through the same cache"
    logits = [each.got for each in expected]
    return _compare(session, kind, use, got, logits, how, operation_of(session), partial(observe, session.model))


def _check_generated(session: Session, kind: str, use: str) -> dict[str, float]:
    batch = _batch(session, use)
    options = {"max_new_tokens": _NEW_TOKENS, "num_beams": _GENERATED[use], **_OPTIONS[kind]}

    def observe(model: Any, tokens: TokenBatch = batch) -> list[Observed]:
        steps = generated_steps(model, tokens, **options)
        return [
            Observed(with_new_tokens(tokens, ids), log_probabilities[:, None], is_step=True)
            for ids, log_probabilities in steps
        ]

    reference_observed(session, observe, f"in generate, {kind} cache ({use})", _operation(kind))
    with candidate_runs(session, cached=True, batch=batch):
        got = observe(session.model)
    with session.pruned_reference() as reference:
        expected = [each.without_cache(reference) for each in got]
    how = "the reference without a cache on the tokens that generate chose"
    return _compare(session, kind, use, got, expected, how, _operation(kind), partial(observe, session.model))


def _operation(kind: str) -> str:
    return "static_cache" if kind == "static" else "cached"


def _compare(
    session: Session,
    kind: str,
    use: str,
    observed: Sequence[Observed],
    references: Sequence[Tensor],
    how: str,
    operation: str,
    observe: Observe,
) -> dict[str, float]:
    context = f"{kind} cache, {use}, against {how}, plan {session.subject.plan}, {session.mode.name}"
    got, expected = torch.cat([each.got for each in observed], dim=1), torch.cat(list(references), dim=1)
    mask = torch.cat([each.mask for each in observed], dim=1)
    try:
        assert_logits_close(
            got, expected, dtype=session.mode.precision, operation=operation, context=context, mask=mask
        )
    except AssertionError as error:
        with candidate_runs(session):
            found = cache_differs(session, kind, use, str(error), _batch(session, use), observe, operation)
        raise FaultFound(found) from None
    difference = float((got - expected)[mask].abs().max())
    return {
        "difference": difference,
        "relative": difference / float(expected[mask].abs().max()),
        "allowed": tolerance(session.mode.precision, operation).relative,
    }


def cache_properties() -> Iterator[tuple[str, str]]:
    """Yield every pair of a kind of cache and a use of it."""
    for kind in KINDS:
        for use in USES:
            yield kind, use
