"""The logits: those of both references, on every kind of token batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from harness.checks.check import FaultFound, Numbers
from harness.checks.explain.logits import logits_differ
from harness.errors import NotChecked
from harness.models.batches import BATCHES
from harness.models.forward import TokenBatch, decoder_layers, holds_values, module_of, residual_stream, uncached_logits
from harness.models.session import Session
from harness.reference.tolerances import assert_logits_close, tolerance
from harness.subject.sublayer_keys import Norm
from harness.system.whose_error import ignoring_errors_of
from pruning import SubLayer
from pruning.plan import sublayers_of

from .candidate import candidate_logits, reference_runs
from .reference_exam import require_agreement
from .repetition import compares_passes

_STOCK_KERNELS: Final = ("transformers.models.", "torch.nn.", "bitsandbytes.", "peft.")
# Its absence does not keep a wrong forward pass from being found: the stock modules run on the kept tensors.
_WITHOUT_BASE = "without --base there are no logits of the unpruned model's weights to compare with"


@compares_passes
def identity(session: Session, kind: str) -> Numbers:
    """On this kind of batch the logits are those of the base without the pruned sub-layers, equally loaded."""
    batch = BATCHES[kind](session)
    with reference_runs(session):
        require_agreement(session, batch)
    got = candidate_logits(session, batch)
    with (
        reference_runs(session),
        session.pruned_reference() as reference,
        residual_stream(reference if kind == "random" else nn.Module()) as stream,  # of one kind: it is large
    ):
        expected = uncached_logits(reference, batch)
    layers = layer_numbers(session, batch, stream) if stream else {}
    how = f"uncached, {kind} tokens, identity reference"
    numbers = compare(session, got, expected, batch, how, layers)
    if not session.has_base:
        raise NotChecked(_WITHOUT_BASE)
    return numbers


@compares_passes
def zero_weights(session: Session) -> Numbers:
    """The logits are those of the base whose pruned sub-layers add zeros, equally loaded."""
    if not session.has_base:
        raise NotChecked(_WITHOUT_BASE)
    batch = BATCHES["random"](session)
    got = candidate_logits(session, batch)
    with reference_runs(session), session.zero_weight_reference() as reference:
        expected = uncached_logits(reference, batch)
    return compare(session, got, expected, batch, "uncached, random tokens, zero-weight reference")


def layer_numbers(session: Session, batch: TokenBatch, expected: Mapping[SubLayer, Tensor]) -> dict[str, float]:
    """Return how far the candidate's residual stream is from the reference's behind each sub-layer, by its name.

    It is the largest difference of an element, relative to the largest absolute element of the reference's there. What
    was not seen in both is left out. No verdict rests on it: it shows where a candidate leaves the reference.
    """
    with residual_stream(session.model) as got, ignoring_errors_of(session.model):  # if it runs without hooks alone
        uncached_logits(session.model, batch)
    compared = batch.mask.bool()
    numbers = {}
    for sublayer in sorted(expected):
        ours, theirs = got.get(sublayer), expected[sublayer]
        if ours is not None and ours.shape == theirs.shape:
            difference = (ours - theirs)[compared].abs().max() / theirs[compared].abs().max()
            numbers[str(sublayer)] = float(difference)
    return numbers


def compare(
    session: Session, got: Tensor, expected: Tensor, batch: TokenBatch, how: str, more: Numbers = None
) -> Numbers:
    """Raise FaultFound unless the logits agree within the table; else return how far they are apart, and `more`."""
    operation = operation_of(session)
    allowed = tolerance(session.mode.precision, operation).relative
    numbers = {**_numbers(got, expected, batch), "allowed": allowed, **(more or {})}
    context = f"{how}, plan {session.subject.plan}, {session.mode.name}, device {session.model.device}"
    try:
        assert_logits_close(
            got, expected, dtype=session.mode.precision, operation=operation, context=context, mask=batch.mask
        )
    except AssertionError as error:
        raise FaultFound(logits_differ(session, batch, str(error)), numbers=numbers) from None
    return numbers


def operation_of(session: Session) -> str:
    """Return the row of the table that holds: code that is not transformers' own may sum in another order."""
    layers = decoder_layers(session.model)
    inside = (part for layer in layers for part in layer.modules() if part is not layer)
    leaves = (part for part in session.model.modules() if next(part.children(), None) is None)
    # A norm in front of what holds nothing computes nothing that is read, whoever wrote it.
    unread = [
        module_of(layers, Norm(each)) for each in sublayers_of(len(layers)) if not holds_values(module_of(layers, each))
    ]
    stock = all(
        type(part).__module__.startswith(_STOCK_KERNELS)
        for part in (*inside, *leaves)
        if next(part.parameters(), None) is not None and not any(part is each for each in unread)
    )
    return "reference" if stock else "attention_implementation"


def _numbers(got: Tensor, expected: Tensor, batch: TokenBatch) -> dict[str, float]:
    if got.shape != expected.shape:
        return {}
    compared = batch.mask.bool()
    difference = (got - expected)[compared].abs().max()
    return {"difference": float(difference), "relative": float(difference / expected[compared].abs().max())}
