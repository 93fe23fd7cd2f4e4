"""Does the same input give the same output? Whatever is measured by comparing two passes rests on that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Concatenate, Final, ParamSpec

import torch
from torch import Tensor

from harness.checks.check import FaultFound, Numbers, fault
from harness.models.batches import random_ids
from harness.models.forward import cached_logits, uncached_logits, unpadded
from harness.models.session import Session
from harness.reference.tolerances import tolerance
from harness.report.outcomes import FoundFault
from harness.system.whose_error import ignoring_errors_of

_AT_ONCE: Final = 6
_SELDOM: Final = 32  # what is random once in ten passes is then missed once in thirty
_SLOW: Final = 2  # quantised weights, and those that are fetched for every pass
_MEMORY: Final = "not repeatable"
P = ParamSpec("P")
_OTHERS: Final = ((1, 1), (3, 13), (1, 40), (2, 5))  # rows and tokens


def compares_passes(run: Callable[Concatenate[Session, P], Numbers]) -> Callable[Concatenate[Session, P], Numbers]:
    """Make a check tell, of a candidate whose passes do not repeat, just that: what else it found means nothing."""

    @wraps(run)
    def guarded(session: Session, /, *args: P.args, **options: P.kwargs) -> Numbers:
        try:
            return run(session, *args, **options)
        except FaultFound:
            if (found := _seldom_repeatable(session)) is None:
                raise
            raise FaultFound(found) from None

    return guarded


def _seldom_repeatable(session: Session) -> FoundFault | None:
    if _MEMORY not in session.memory:
        session.memory[_MEMORY] = None
        with ignoring_errors_of(session.model):  # which the checks themselves tell
            session.memory[_MEMORY] = not_repeatable(session, _SELDOM)
    found: FoundFault | None = session.memory[_MEMORY]
    return found


def not_repeatable(session: Session, passes: int = _AT_ONCE) -> FoundFault | None:
    """Return the fault of a candidate whose passes over the same tokens differ, None if none do.

    Up to `passes` follow one another; then other tokens are computed, with a cache too, and the first ones again.
    """
    if session.mode.is_quantised or session.mode.is_offloaded:
        passes = min(passes, _SLOW)
    config, model = session.subject.config, session.model
    batch = unpadded(random_ids(config, 2, 9))
    first = uncached_logits(model, batch)
    for _ in range(passes):
        if not repeats(session, again := uncached_logits(model, batch), first):
            return _fault(again, first, "at once")
    for rows, tokens in _OTHERS:
        uncached_logits(model, unpadded(random_ids(config, rows, tokens)))
    # The checks of the cache tell what it raises, and where the output holds no cache, which is a ValueError.
    with ignoring_errors_of(model), suppress(ValueError):
        cached_logits(model, batch, None, (6, 1, 1, 1))
    if not repeats(session, again := uncached_logits(model, batch), first):
        return _fault(again, first, "after other tokens were computed")
    return None


def repeats(session: Session, again: Tensor, first: Tensor) -> bool:
    """Whether the logits are the same, NaN where there was NaN, or within the table."""
    if torch.equal(again.isnan(), first.isnan()) and torch.equal(again.nan_to_num(), first.nan_to_num()):
        return True
    allowed = tolerance(session.mode.precision, "reference").relative
    return bool((again - first).abs().max() <= allowed * first.abs().max())


def _fault(again: Tensor, first: Tensor, when: str) -> FoundFault:
    return fault(
        "code", "not-repeatable",
        f"the same tokens give other logits when they are computed again {when}",
        f"by up to {float((again - first).abs().max()):.3g}",
        "what is measured by comparing two passes means nothing here",
        remedy="Compute nothing at random in evaluation mode, and keep no state between passes.",
    )  # fmt: skip
