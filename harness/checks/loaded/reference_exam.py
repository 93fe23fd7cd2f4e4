"""The reference is judged before it judges: does it pass the very test that a check is about to ask of the candidate?

Through a cache, a reference must compute what it computes without one; and where both references exist, they must
agree. One that does not decides nothing, and the check that rests on it says so. Where the untouched stock model fails
in the same way, the fault is upstream's on this release, which is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor

from harness.errors import NotChecked, Undecided
from harness.models.forward import TokenBatch, uncached_logits
from harness.models.self_agreement import Observed
from harness.models.session import Session
from harness.reference.tolerances import tolerance
from harness.system.crashes import last_line
from harness.system.whose_error import raised_by
from harness.text.generation import Speech

from .candidate import require_mode

Use = Callable[[Any], Sequence[Observed]]
"""Runs a model on certain tokens, in the way that a check asks for, and returns what it gave."""


def reference_observed(session: Session, use: Use, what: str, operation: str) -> Sequence[Observed]:
    """Return what the pruned reference gives, once it is known to be right; `what` says how it is used, in words.

    Its logits are held against its own without a cache, within the row `operation` of the table, and against those of
    the zero-weight reference where there is one.

    Raises Undecided if the reference fails.
    """
    key = f"exam {what}"
    if key not in session.memory:
        session.memory[key] = _examined(session, use, what, operation)
    observed, failure = session.memory[key]
    if failure is not None:
        raise Undecided(failure)
    return observed  # type: ignore[no-any-return]  # what was remembered above


def require_agreement(session: Session, batch: TokenBatch) -> None:
    """Raise Undecided unless both references give the same logits for a batch without a cache, where both exist."""
    key = f"references agree {batch.ids.tolist()} {batch.mask.tolist()}"
    if key not in session.memory:
        with session.pruned_reference() as reference:
            logits = uncached_logits(reference, batch)
        session.memory[key] = _other_reference_differs(
            session, lambda model: [Observed(batch, uncached_logits(model, batch))], [Observed(batch, logits)]
        )
    if (failure := session.memory[key]) is not None:
        raise Undecided(failure)


def require_own_words(session: Session, speech: Speech) -> None:
    """Raise Undecided unless the reference chose each token of its `speech` by what it computes without a cache."""
    allowed = tolerance(session.mode.precision, "cached").relative
    for said in speech.said:
        if said.step_logits is not None:
            whole = torch.ones(len(said.new_ids), dtype=torch.bool)
            distance = _distance(said.step_logits, speech.logits_of_new(said), whole)
            if not distance <= allowed:
                raise Undecided(
                    "the reference fails its own test, generating text: it is off from its own logits without a cache "
                    f"by {distance:.3g} of the largest, allowed {allowed:.3g}; so it decides nothing"
                )


def _examined(session: Session, use: Use, what: str, operation: str) -> tuple[Sequence[Observed], str | None]:
    with session.pruned_reference() as reference:
        observed, failure = _fails(session, reference, use, operation)
    if failure is None:
        return observed, _other_reference_differs(session, use, observed)
    require_mode(session)
    if (upstream := _fails(session, session.reference, use, operation)[1]) is None:
        return (), f"the reference fails its own test, {what}: {failure}; so it decides nothing"
    model_class = type(session.reference).__name__
    finding = (
        f"transformers {transformers.__version__} computes wrong by itself: the untouched {model_class}, {what}, "
        f"{upstream}"
    )
    session.subject.findings.append(finding)
    return (), f"{finding}; so nothing can be said of the candidate"


def _fails(session: Session, model: Any, use: Use, operation: str) -> tuple[Sequence[Observed], str | None]:
    """Return what a stock model gives, and why it is not what the same model gives without a cache; None if it is."""
    try:
        observed = use(model)
    except (MemoryError, torch.OutOfMemoryError):
        raise NotChecked(f"there is not enough memory for {session.mode.name}") from None
    except Exception as error:
        if not raised_by(error, model):
            raise
        return (), f"raises {last_line(error)}"
    allowed = tolerance(session.mode.precision, operation).relative
    worst = max(_distance(each.got, each.without_cache(model), each.mask) for each in observed)
    if worst <= allowed:  # NaN is not
        return observed, None
    return observed, f"is off from its own logits without a cache by {worst:.3g} of the largest, allowed {allowed:.3g}"


def _other_reference_differs(session: Session, use: Use, observed: Sequence[Observed]) -> str | None:
    """Say how far the zero-weight reference is from what the other one gave; None if it agrees, or cannot exist."""
    with _zero_weight_reference(session) as other:
        if other is None:
            return None
        pairs = zip(observed, use(other), strict=True)
        worst = max(_distance(each.got, theirs.got, each.mask) for each, theirs in pairs)
    allowed = tolerance(session.mode.precision, "zero_weight").relative
    if worst <= allowed:
        return None
    return f"the two references disagree, by {worst:.3g} of the largest logit, allowed {allowed:.3g}"


@contextmanager
def _zero_weight_reference(session: Session) -> Iterator[Any]:
    if session.mode.is_quantised or session.mode.is_offloaded:
        yield None
        return
    with session.zero_weight_reference() as reference:
        yield reference


def _distance(got: Tensor, expected: Tensor, mask: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest expected, where `mask` is true."""
    if got.shape != expected.shape:
        return float("inf")
    if not mask.any():
        return 0.0
    difference = (got - expected)[mask].abs().max() / expected[mask].abs().max()
    return float(difference.nan_to_num(nan=float("inf")))
