"""Faults that other faults hide: put right, in a copy or in memory, what is known to be wrong, and look again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from harness.checks.check import fault, listed
from harness.models.batches import BATCHES
from harness.models.layers import computing_otherwise
from harness.models.memory import available_bytes, too_large
from harness.models.modes import LoadingMode, mode_of
from harness.models.session import new_session
from harness.report.outcomes import FoundFault
from harness.subject.subject import Subject
from harness.system.scratch import scratch_folder
from harness.system.whose_error import raised_by

from .all_checks import checks
from .diagnosis import diagnose
from .repair import repaired
from .runner import Judged, run_checks

_OF_WHAT_IS_PRUNED: Final = frozenset({"residual", "gate", "plan"})
_WHAT_RUNS: Final = frozenset({"called", "poison", "logits"})  # checks
_WHAT_IS_HELD: Final = frozenset({"load", "placement", "resident", "buffers"})
_APART_FROM_LAYERS: Final = frozenset({"cache", "padding", "tokenizer"})


def faults_of_the_code(
    subject: Subject, judged: Judged, told: Collection[str], memory: int | None = None
) -> tuple[FoundFault, ...]:
    """Return the faults that the checkpoint's own code has by itself, where faults of what is stored hide them.

    `told` are the families of the faults that are told anyway. Raises RuntimeError if a check crashes on the way.
    """
    stored = any(name.startswith("stored.") for name in judged.faults)
    hidden = any(not name.startswith("stored.") for name in judged.faults)
    if not stored or not hidden:
        return ()
    mode = LoadingMode("plain", "float32")
    if too_large(subject, mode, available_bytes() if memory is None else memory):
        return ()
    with repaired(subject) as candidate:
        if candidate is None:
            return ()
        again = run_checks(candidate, [check for check in checks([mode]) if check.mode is not None], memory=memory)
        for record in again.records:
            if record.outcome == "error":
                raise RuntimeError(f"{record.name}, of the repaired checkpoint: {record.reason}\n{record.traceback}")
        faults = diagnose(again.faults)
        faults += faults_of_the_layers(candidate, again, faults, memory)
    if any(name.endswith(".load") for name in again.faults) and f"{mode.name}.load" not in judged.faults:
        return ()  # code that was written for what is stored, not for what the base has
    return tuple(found for found in faults if found.family not in told)


def faults_of_the_layers(
    subject: Subject, judged: Judged, faults: Collection[FoundFault], memory: int | None = None, model: Any = None
) -> tuple[FoundFault, ...]:
    """Return the fault of kept sub-layers that compute something else, where what runs in pruned ones hides it.

    `faults` are those that are told anyway, `model` the one that was given, if any.
    """
    told = {found.family for found in faults}
    seen = [(name.split(".")[1], found.family) for name, each in judged.faults.items() for found in each]
    running = {family for title, family in seen if title in _WHAT_RUNS}
    if not (told & running & _OF_WHAT_IS_PRUNED) or told - _OF_WHAT_IS_PRUNED - _APART_FROM_LAYERS:
        return ()
    if any(title in _WHAT_IS_HELD for title, _ in seen):
        return ()  # which explains whatever a layer computes
    own_code = subject.code.is_own and not subject.code.released
    mode = LoadingMode("plain", "float32") if model is None else mode_of(model)
    if mode.is_quantised or mode.is_offloaded or not (own_code or model is not None):
        return ()
    with scratch_folder() as scratch:
        session = new_session(subject, mode, scratch, model, memory)
        try:
            wrong = computing_otherwise(session, BATCHES["random"](session))
        except Exception as error:
            if not raised_by(error, session.model):
                raise
            return ()  # whatever a checkpoint's code raises, which the checks tell
        finally:
            session.close()
    if not wrong:
        return ()
    names = {f"layers.{index}.{sublayer}" for index, sublayer in wrong}
    return (
        fault(
            "code" if own_code else "unexplained", "kept-sub-layers-compute-otherwise",
            f"{len(names)} kept sub-layer(s) compute something else: {listed(names)}",
            "each layer was given what enters the reference's: what runs in pruned ones is not why",
            remedy="Correct the modeling code, or use the modeling files that prunecheck writes.",
        ),
    )  # fmt: skip
