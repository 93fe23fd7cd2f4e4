"""From what runs and should not, or does not and should, to the faults that this comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.checks.check import fault, listed
from harness.errors import NotChecked, Undecided
from harness.models.forward import TokenBatch, decoder_layers, holds_values, part_of, silenced, uncached_logits
from harness.models.session import Session
from harness.reference.tolerances import assert_logits_close
from harness.report.outcomes import FoundFault
from harness.subject.subject import NORM_OF
from harness.system.whose_error import ignoring_errors_of

_SUBLAYER_OF: Final = {norm: sublayer for sublayer, norm in NORM_OF.items()}


def call_faults(
    session: Session, wrong: set[tuple[int, str]], idle: set[tuple[int, str]], batch: TokenBatch
) -> Iterator[FoundFault]:
    """Yield the faults of a model in which pruned parts of decoder layers run (`wrong`), or kept ones do not (`idle`).

    `batch` is what was run; parts are pairs such as `(3, "mlp")`.
    """
    norms = {part for part in wrong if part[1] in NORM_OF.values()}
    sublayers = wrong - norms
    # A sub-layer that runs, though its norm does not, takes what it reads from somewhere else.
    bypassed = {(index, norm) for index, norm in idle if (index, _SUBLAYER_OF.get(norm)) not in idle} & _norms(idle)
    if bypassed:
        read = {(index, norm) for index, norm in norms if index in {layer_idx for layer_idx, _ in bypassed}}
        norms, idle = norms - read, idle - bypassed
        yield fault(
            "code", "norm-bypassed",
            f"{len(bypassed)} norm(s) never run, though what they are in front of does: {named(bypassed)}",
            *([f"in their place run {named(read)}, whose own sub-layers are pruned"] if read else []),
            remedy="Give each sub-layer what its own norm puts out.",
        )  # fmt: skip
    class_name = type(session.model).__name__
    layers = decoder_layers(session.model)
    identities = {part for part in sublayers if not holds_values(part_of(layers[part[0]], part[1]))}
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


def _repaired_by_silence(session: Session, sublayers: set[tuple[int, str]], batch: TokenBatch) -> list[str]:
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


def _norms(parts: set[tuple[int, str]]) -> set[tuple[int, str]]:
    return {part for part in parts if part[1] in _SUBLAYER_OF}


def named(parts: set[tuple[int, str]]) -> str:
    """Return the names of the first few of these parts of decoder layers."""
    return listed({f"layers.{layer_idx}.{name}" for layer_idx, name in parts})
