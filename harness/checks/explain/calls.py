"""From what runs and should not, or does not and should, to the faults that this comes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.checks.check import fault, listed
from harness.errors import NotChecked, Undecided
from harness.models.forward import Part, TokenBatch, decoder_layers, holds_values, module_of, silenced, uncached_logits
from harness.models.session import Session
from harness.reference.tolerances import assert_logits_close
from harness.report.outcomes import FoundFault
from harness.subject.sublayer_keys import Norm
from harness.system.whose_error import ignoring_errors_of
from pruning import SubLayer


def call_faults(session: Session, wrong: set[Part], idle: set[Part], batch: TokenBatch) -> Iterator[FoundFault]:
    """Yield the faults of a model in which pruned parts of decoder layers run (`wrong`), or kept ones do not (`idle`).

    `batch` is what was run.
    """
    norms = {part for part in wrong if isinstance(part, Norm)}
    sublayers = {part for part in wrong if isinstance(part, SubLayer)}
    # A sub-layer that runs, though its norm does not, takes what it reads from somewhere else.
    bypassed = {part for part in idle if isinstance(part, Norm) and part.of not in idle}
    if bypassed:
        layers = {norm.of.layer for norm in bypassed}
        read = {norm for norm in norms if norm.of.layer in layers}
        norms, idle = norms - read, idle - bypassed
        yield fault(
            "code", "norm-bypassed",
            f"{len(bypassed)} norm(s) never run, though what they are in front of does: {named(bypassed)}",
            *([f"in their place run {named(read)}, whose own sub-layers are pruned"] if read else []),
            remedy="Give each sub-layer what its own norm puts out.",
        )  # fmt: skip
    class_name = type(session.model).__name__
    modules = decoder_layers(session.model)
    identities = {each for each in sublayers if not holds_values(module_of(modules, each))}
    if identities:
        yield fault(
            "residual", "pruned-norm-still-added",
            f"{named(identities)} holds nothing and runs: what its norm gives is added to the residual stream",
            remedy="Skip norm, module and residual add together: x + norm(x) is not x.",
        )  # fmt: skip
    elif sublayers:
        yield fault(
            "plan", "pruned-sub-layers-run",
            f"{len(sublayers)} pruned sub-layer(s) run in {class_name}: {named(sublayers)}",
            "their weights are not stored, so what runs is random",
            *_repaired_by_silence(session, sublayers, batch),
            remedy="Load with a class that reads the plan from config.json, and skips these sub-layers.",
        )  # fmt: skip
    elif norms:
        yield fault(
            "residual", "pruned-norm-still-added",
            f"{len(norms)} norm(s) of pruned sub-layers run and reach the logits: {named(norms)}",
            "with NaN in such a norm the logits change",
            remedy="Skip norm, module and residual add together: x + norm(x) is not x.",
        )  # fmt: skip
    if idle:
        yield fault(
            "plan", "kept-sub-layers-idle",
            f"{len(idle)} kept part(s) of decoder layers never run in {class_name}: {named(idle)}",
            remedy="Skip exactly what the plan prunes.",
        )  # fmt: skip


def _repaired_by_silence(session: Session, sublayers: set[SubLayer], batch: TokenBatch) -> list[str]:
    """Say whether the logits are right while these sub-layers put out zeros: then nothing else is at fault."""
    try:
        with session.pruned_reference() as reference:
            expected = uncached_logits(reference, batch)
    except (NotChecked, Undecided):
        return []
    got = None
    # Whatever a checkpoint's code raises where a part of it puts out something else.
    with ignoring_errors_of(session.model), silenced(session.model, sublayers):
        got = uncached_logits(session.model, batch)
    if got is None:
        return []
    try:
        assert_logits_close(
            got, expected, dtype=session.mode.precision, operation="attention_implementation", context="silenced"
        )
    except AssertionError:
        return []
    return ["while they put out zeros the logits are right: without a cache nothing else is wrong"]


def named(parts: Iterable[Part]) -> str:
    """Return the names of the first few of these parts of decoder layers."""
    return listed({str(part) for part in parts})
