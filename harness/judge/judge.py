"""Judge a checkpoint, or a model that is loaded: run every check, gather one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from harness.checks.check import Check
from harness.errors import CannotRun
from harness.models.memory import available_bytes, too_large
from harness.models.modes import DTYPES, PLACES, QUANTISATIONS, LoadingMode, loading_modes, mode_of
from harness.report.outcomes import Coverage, FoundFault
from harness.report.report import Report
from harness.subject.environment import environment
from harness.subject.subject import Subject, read_subject
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan

from .all_checks import checks, selected
from .carried_code import told_apart, told_apart_of_model
from .diagnosis import diagnose
from .runner import Judged, Progress, run_check, run_checks


def check_checkpoint(
    checkpoint: str | Path,
    *,
    base: str | Path | None = None,
    plan: PrunePlan | None = None,
    device_map: Sequence[str] = PLACES,
    dtype: Sequence[str] = DTYPES,
    quantisation: Sequence[str] = QUANTISATIONS,
    trust_remote_code: bool = False,
    allow_partial: bool = False,
    keyword: str | None = None,
    workers: int = 1,
    memory: int | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Report:
    """Judge a checkpoint directory, in every loading mode that is asked for and can run here.

    Args:
        checkpoint: The pruned checkpoint: one of prunecheck's, one with code of its own, or a bare state dict.
        base: The unpruned checkpoint. Without it, bytes and logits are compared with what the checkpoint itself has.
        plan: The plan that was meant; without it, the manifest's, or what the absent keys amount to.
        device_map: Places of `harness.models.modes`.
        dtype: "float32", "bfloat16".
        quantisation: "8bit", "4bit".
        trust_remote_code: Whether the checkpoint's own code may run; that of a release of prunecheck always may.
        allow_partial: Whether "sound" may be said though keys, bytes or logits could not be checked.
        keyword: Run those checks alone whose name matches, in the syntax of pytest's `-k`.
        workers: Processes to run the loading modes in.
        memory: Bytes that models may take; what is free on the machine if not given.
        progress: See Progress.
        warn: Called with what should be known before any of the checkpoint's code runs; it is a finding, too.

    Raises:
        CannotRun: Checkpoint or base is none, or an option has an unknown value.
    """
    subject = read_subject(checkpoint, base, plan, trust_remote_code=trust_remote_code)
    if warn is not None:
        for finding in subject.findings:
            warn(finding)
    try:
        modes = list(loading_modes(device_map, dtype, quantisation))
        chosen = selected(checks_that_fit(subject, modes, memory), keyword)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    if not chosen:
        raise CannotRun(f"no check has a name that matches {keyword!r}")
    with quiet_libraries():
        if workers > 1:
            from .workers import run_in_processes

            judged = run_in_processes(subject, chosen, workers, memory, progress)
        else:
            judged = run_checks(subject, chosen, memory=memory, progress=progress)
        judged, faults = _diagnosed(judged, lambda: told_apart(subject, chosen, judged, memory, progress))
    options = {
        "device_map": list(device_map), "dtype": list(dtype), "quantisation": list(quantisation), "keyword": keyword,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    return _report(subject, judged, faults, allow_partial, options)


def check_model(
    model: Any,
    *,
    checkpoint: str | Path,
    base: str | Path | None = None,
    plan: PrunePlan | None = None,
    allow_partial: bool = False,
    keyword: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judge a model that was loaded by other code from `checkpoint`, which is judged with it, as far as it is stored.

    The model is put into evaluation mode while it is judged, and left as it was. The reference is loaded alike: dtype,
    quantisation, device map. For the other arguments and errors, see `check_checkpoint`.
    """
    subject = read_subject(checkpoint, base, plan, trust_remote_code=True)
    try:
        chosen = selected(checks([mode_of(model)], given=True), keyword)
    except ValueError as error:
        raise CannotRun(str(error)) from None
    training = {module: module.training for module in model.modules()}
    with quiet_libraries():
        try:
            model.eval()
            judged = run_checks(subject, chosen, model=model, progress=progress)
            judged, faults = _diagnosed(judged, lambda: told_apart_of_model(model, subject, chosen, judged))
        finally:
            for module, was_training in training.items():  # parts may be frozen in evaluation mode
                module.training = was_training
    return _report(subject, judged, faults, allow_partial, {"model": type(model).__name__, "keyword": keyword})


def checks_that_fit(subject: Subject, modes: list[LoadingMode], memory: int | None = None) -> list[Check]:
    """Return the checks of these modes, in full for those whose models fit into `memory` bytes, or what is free.

    Where no plain mode fits, there is also one that leaves every layer on the disk.
    """
    available = available_bytes() if memory is None else memory
    large = [mode for mode in modes if too_large(subject, mode, available)]
    plain = [mode for mode in modes if mode.place == "plain" and not mode.is_quantised]
    if plain and all(mode in large for mode in plain) and subject.says_nothing is None:
        modes = [*modes, LoadingMode("disk-all", plain[-1].precision)]
    return list(checks(modes, too_large=large))


def _diagnosed(
    judged: Judged, tell_apart: Callable[[], tuple[Sequence[FoundFault], Judged]]
) -> tuple[Judged, tuple[FoundFault, ...]]:
    """Return the faults to tell: that of carried code, and the causes of what it does not explain.

    `tell_apart` returns the fault of carried code, and what was judged less what it explains. A step that crashes costs
    nothing that the other tells, and is one more record, as a check that crashes is.
    """
    faults: list[FoundFault] = []
    unexplained = judged

    def carried_code(_: object) -> None:
        nonlocal unexplained
        found, unexplained = tell_apart()
        faults.extend(found)

    def causes(_: object) -> None:
        faults.extend(diagnose(unexplained.faults))

    steps = (Check("diagnosis.carried-code", carried_code), Check("diagnosis.causes", causes))
    records = [record for record, _ in (run_check(step, None) for step in steps) if record.outcome == "error"]
    return replace(judged, records=(*judged.records, *records)), tuple(faults)


def _report(
    subject: Subject,
    judged: Judged,
    faults: tuple[FoundFault, ...],
    allow_partial: bool,
    options: dict[str, Any],
) -> Report:
    passed = {record.name for record in judged.records if record.outcome == "passed"}
    compared: Literal["base", "manifest"] | None = None
    if "stored.base-bytes" in passed:
        compared = "base"
    elif "stored.manifest-bytes" in passed:
        compared = "manifest"
    return Report(
        checkpoint=str(subject.root),
        base=None if subject.base is None else str(subject.base.root),
        plan=subject.plan.to_dict(),
        checks=judged.records,
        coverage=Coverage(
            keys="stored.keys" in passed,
            bytes=compared,
            logits=any(".logits.identity." in name for name in passed),
            partial_allowed=allow_partial,
        ),
        faults=faults,
        findings=judged.findings,
        environment=environment(subject, **options),
    )
