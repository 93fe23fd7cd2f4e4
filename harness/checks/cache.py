"""The KV cache: through every kind of cache, and in every way of using it, the logits are the reference's.

| | one step at a time | chunked prefill | reused | beam | left-padded |
|---|---|---|---|---|---|
| dynamic | yes | yes | yes | yes | yes |
| static | yes | yes | yes | yes | yes |
| none | yes | | | yes | yes |

What is fed in pieces is compared with the reference fed in the same pieces, in every precision. What `generate` does
by itself is compared, in float32, with the reference's logits of the same tokens without a cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from harness.batches import random_ids
from harness.forward import NEW_CACHE, TokenBatch, cached_logits, uncached_logits, unpadded
from harness.generation import generated_steps, uncached_step
from harness.session import Session
from harness.tolerances import assert_logits_close, tolerance

from .candidate import candidate_runs
from .check import FaultFound, NotChecked, Numbers
from .explain import cache_differs
from .logits import operation_of

KINDS: Final = ("dynamic", "static", "none")
_NEW_TOKENS: Final = 4
_TOKENS: Final = 14  # all at once; in tiny models longer than the sliding window


def _batch(session: Session, *, padded: bool) -> TokenBatch:
    ids = random_ids(session.subject.config, 2, _TOKENS, seed=2)
    if not padded:
        return unpadded(ids)
    return TokenBatch(ids, torch.stack([torch.arange(_TOKENS) >= padding for padding in (0, 4)]).long())


def _in_pieces(model: Any, kind: str, batch: TokenBatch, pieces: Sequence[int]) -> Tensor:
    return cached_logits(model, batch, NEW_CACHE[kind](model, _TOKENS), pieces)[0]


def _reused(model: Any, kind: str, batch: TokenBatch) -> Tensor:
    """Return the logits of two different continuations of one cache, each a turn of several tokens and single ones."""
    first, cache = cached_logits(model, batch, NEW_CACHE[kind](model, _TOKENS), (5, 1))
    other = TokenBatch(torch.cat([batch.ids[:, :6], batch.ids[:, 6:].flip(-1)], dim=1), batch.mask)
    turns = [cached_logits(model, each, copy.deepcopy(cache), (_TOKENS - 6 - 2, 1, 1))[0] for each in (batch, other)]
    return torch.cat([first, *turns], dim=1)


_PIECEWISE: Final[dict[str, Callable[[Any, str, Session], Tensor]]] = {
    "one-step-at-a-time": lambda model, kind, session: _in_pieces(
        model, kind, _batch(session, padded=False), (_TOKENS - 5, 1, 1, 1, 1, 1)
    ),
    "chunked-prefill": lambda model, kind, session: _in_pieces(
        model, kind, _batch(session, padded=False), (3, 4, 5, 1, 1)
    ),
    "reused": lambda model, kind, session: _reused(model, kind, _batch(session, padded=False)),
    "left-padded": lambda model, kind, session: _in_pieces(
        model, kind, _batch(session, padded=True), (_TOKENS - 5, 1, 1, 1, 2)
    ),
}
_GENERATED: Final = {"one-step-at-a-time": 1, "left-padded": 1, "beam": 3}  # with how many beams
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "dynamic": {}, "static": {"cache_implementation": "static"}, "none": {"use_cache": False},
}  # fmt: skip

USES: Final = (*_PIECEWISE, "beam")


def cache(session: Session, kind: str, use: str) -> Numbers:
    """Through this kind of cache, used in this way, the logits are the reference's."""
    if kind == "none" and use not in _GENERATED:
        raise NotChecked("without a cache there is nothing to fill in chunks or to use again")
    numbers: dict[str, float] = {}
    if kind != "none" and use in _PIECEWISE:
        numbers |= _check_pieces(session, kind, use)
    if use in _GENERATED and session.mode.precision == "float32":
        numbers |= _check_generated(session, kind, use)
    if not numbers:
        raise NotChecked(f"what generate does with {kind} caches is compared in float32 alone")
    return numbers


def _check_pieces(session: Session, kind: str, use: str) -> dict[str, float]:
    run = _PIECEWISE[use]
    with candidate_runs(session, cached=True):
        got = run(session.model, kind, session)
    with session.pruned_reference() as reference:
        try:
            expected = run(reference, kind, session)
        except Exception as error:  # what transformers itself cannot do in this version
            raise NotChecked(f"the reference itself fails: {error}") from None
    mask = None
    if use == "left-padded":
        mask = _batch(session, padded=True).mask
    return _compare(
        session, kind, use, got, expected, "the reference through the same cache", mask, operation_of(session)
    )


def _check_generated(session: Session, kind: str, use: str) -> dict[str, float]:
    batch = _batch(session, padded=use != "one-step-at-a-time")
    beams = _GENERATED[use]
    with candidate_runs(session, cached=True):
        steps = generated_steps(session.model, batch, max_new_tokens=_NEW_TOKENS, num_beams=beams, **_OPTIONS[kind])
    with session.pruned_reference() as reference:
        expected = [uncached_step(reference, batch, tokens) for tokens, _ in steps]
    got = torch.stack([log_probabilities for _, log_probabilities in steps], dim=1)
    operation = "static_cache" if kind == "static" else "cached"
    how = "the reference without a cache on the tokens that generate chose"
    return _compare(session, kind, use, got, torch.stack(expected, dim=1), how, None, operation)


def _compare(
    session: Session,
    kind: str,
    use: str,
    got: Tensor,
    expected: Tensor,
    how: str,
    mask: Tensor | None,
    operation: str,
) -> dict[str, float]:
    context = f"{kind} cache, {use}, against {how}, plan {session.subject.plan}, {session.mode.name}"
    try:
        assert_logits_close(
            got, expected, dtype=session.mode.precision, operation=operation, context=context, mask=mask
        )
    except AssertionError as error:
        uncached_is_right = _uncached_is_right(session)
        raise FaultFound(cache_differs(session, kind, use, str(error), uncached_is_right)) from None
    difference = float((got - expected).abs().max())
    return {
        "difference": difference,
        "relative": difference / float(expected.abs().max()),
        "allowed": tolerance(session.mode.precision, operation).relative,
    }


def _uncached_is_right(session: Session) -> bool:
    """Whether the same tokens without a cache give the reference's logits: then the cache alone is at fault."""
    batch = _batch(session, padded=False)
    with candidate_runs(session):
        got = uncached_logits(session.model, batch)
    with session.pruned_reference() as reference:
        expected = uncached_logits(reference, batch)
    try:
        assert_logits_close(
            got, expected, dtype=session.mode.precision, operation=operation_of(session), context="uncached"
        )
    except AssertionError:
        return False
    return True


def cache_properties() -> Iterator[tuple[str, str]]:
    """Yield every pair of a kind of cache and a use of it."""
    for kind in KINDS:
        for use in USES:
            yield kind, use
