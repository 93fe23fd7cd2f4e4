"""Judge a checkpoint, or a model that is loaded: run every check, gather one report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch

from pruning import PrunePlan

from .checks.check import Check, FaultFound, NotChecked
from .conformance import checks, selected
from .diagnosis import diagnose
from .errors import CannotRun
from .loading_modes import DTYPES, PLACES, QUANTISATIONS, LoadingMode, loading_modes
from .memory import available_bytes, too_large
from .quiet import quiet_libraries
from .repair import repaired
from .reporting.environment import environment
from .reporting.report import CheckRecord, Coverage, FoundFault, Outcome, Report
from .session import Session, first_line
from .subject import Subject, read_subject

Progress = Callable[[int, int, str], None]
"""Called before each check with how many are done, how many there are, and the name of the next."""


@dataclass(frozen=True)
class Judged:
    """What a run of checks came to: records, the faults of each check by its name, and findings."""

    records: tuple[CheckRecord, ...]
    faults: dict[str, tuple[FoundFault, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


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
) -> Report:
    """Judge a checkpoint directory, in every loading mode that is asked for and can run here.

    Args:
        checkpoint: The pruned checkpoint: one of prunecheck's, one with code of its own, or a bare state dict.
        base: The unpruned checkpoint. Without it, bytes and logits are compared with what the checkpoint itself has.
        plan: The plan that was meant; without it, the manifest's, or what the absent keys amount to.
        device_map: Places of `harness.loading_modes`.
        dtype: "float32", "bfloat16".
        quantisation: "8bit", "4bit".
        trust_remote_code: Whether the checkpoint's own code may run; that of a release of prunecheck always may.
        allow_partial: Whether "sound" may be said though keys, bytes or logits could not be checked.
        keyword: Run those checks alone whose name matches, in the syntax of pytest's `-k`.
        workers: Processes to run the loading modes in.
        memory: Bytes that models may take; what is free on the machine if not given.
        progress: See Progress.

    Raises:
        CannotRun: Checkpoint or base is none, or an option has an unknown value.
    """
    subject = read_subject(checkpoint, base, plan, trust_remote_code=trust_remote_code)
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
        faults = diagnose(judged.faults)
        faults += faults_of_the_code(subject, judged, {fault.family for fault in faults}, memory)
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
        finally:
            for module, was_training in training.items():  # parts may be frozen in evaluation mode
                module.training = was_training
    faults = diagnose(judged.faults)
    return _report(subject, judged, faults, allow_partial, {"model": type(model).__name__, "keyword": keyword})


def mode_of(model: Any) -> LoadingMode:
    """Return the mode that a model which is there was loaded in; its place is called `given`."""
    quantisation = getattr(model.config, "quantization_config", None)
    if quantisation is not None:
        as_dict = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
        return LoadingMode("given", "8bit" if as_dict.get("load_in_8bit") else "4bit")
    # float16 rounds more finely than bfloat16, so what holds for that holds for it.
    precision = "float32" if model.dtype in (torch.float32, torch.float64) else "bfloat16"
    disk = "disk" in set((getattr(model, "hf_device_map", None) or {}).values())
    return LoadingMode("disk-given" if disk else "given", precision)


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


def run_checks(
    subject: Subject,
    chosen: Sequence[Check],
    *,
    model: Any = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Judged:
    """Run checks one after the other, with the models of one loading mode in memory at a time."""
    records: list[CheckRecord] = []
    faults: dict[str, tuple[FoundFault, ...]] = {}
    session: Session | None = None
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="prunecheck-")))
        for number, check in enumerate(chosen):
            if progress is not None:
                progress(number, len(chosen), check.name)
            if check.mode is not None and (session is None or session.mode != check.mode):
                if session is not None:
                    session.close()
                session = new_session(subject, check.mode, scratch, model, memory)
            record, found = run_check(check, subject if check.mode is None else session)
            records.append(record)
            if found:
                faults[check.name] = found
        if session is not None:
            session.close()
    return Judged(tuple(records), faults, tuple(dict.fromkeys(subject.findings)))


def new_session(
    subject: Subject, mode: LoadingMode, scratch: Path, model: Any = None, memory: int | None = None
) -> Session:
    """Return the session of a mode, with a folder of its own; one whose models do not fit loads none."""
    folder = scratch / mode.name
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(subject, mode, folder, model)
    available = available_bytes() if memory is None else memory
    if model is None and (reason := too_large(subject, mode, available)):
        session.refused = reason
    return session


def run_check(check: Check, target: Any) -> tuple[CheckRecord, tuple[FoundFault, ...]]:
    """Run one check on a Subject or a Session; never raises what the check raises to say what it found."""
    started = time.perf_counter()
    found: tuple[FoundFault, ...] = ()
    outcome: Outcome = "passed"
    reason: str | None = None
    numbers: dict[str, float] = {}
    try:
        numbers = dict(check.run(target) or {})
    except NotChecked as error:
        outcome, reason = "skipped", str(error)
    except FaultFound as error:
        outcome, reason, found, numbers = "failed", str(error), error.faults, dict(error.numbers)
    except Exception as error:  # no error of ours, or of the code that is judged, costs the rest of the report
        outcome, reason = "skipped", f"the check itself failed, {type(error).__name__}: {first_line(error)}"
    return CheckRecord(check.name, outcome, reason, time.perf_counter() - started, numbers), found


def faults_of_the_code(
    subject: Subject, judged: Judged, told: Collection[str], memory: int | None = None
) -> tuple[FoundFault, ...]:
    """Return the faults that the checkpoint's own code has by itself, where faults of what is stored hide them.

    `told` are the families of the faults that are told anyway.
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
    if any(name.endswith(".load") for name in again.faults) and f"{mode.name}.load" not in judged.faults:
        return ()  # code that was written for what is stored, not for what the base has
    return tuple(fault for fault in diagnose(again.faults) if fault.family not in told)


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
