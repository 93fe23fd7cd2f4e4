"""Run checks one after the other, and gather what they came to: the models of one loading mode at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.checks.check import Check, FaultFound
from harness.errors import NotChecked, Undecided
from harness.models.session import Session, new_session
from harness.report.outcomes import CheckRecord, FoundFault, Outcome
from harness.subject.subject import Subject
from harness.system.crashes import last_line, whole_traceback
from harness.system.panics import panics_as_errors
from harness.system.scratch import scratch_folder
from harness.system.signals import ended_by

Progress = Callable[[int, int, str], None]
"""Called before each check with how many are done, how many there are, and the name of the next."""


@dataclass(frozen=True)
class Judged:
    """What a run of checks came to: records, the faults of each check by its name, and findings."""

    records: tuple[CheckRecord, ...]
    faults: dict[str, tuple[FoundFault, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


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
        scratch = stack.enter_context(scratch_folder())
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


def run_check(check: Check, target: Any) -> tuple[CheckRecord, tuple[FoundFault, ...]]:
    """Run one check on a Subject or a Session, and return what it came to: what the check raises is part of that.

    Whatever it raises beside FaultFound, NotChecked and Undecided is a crash, the outcome `error`. SystemExit is one,
    too: code of a checkpoint that ends the process must not end it as sound. A signal that ends the command is raised.
    """
    started = time.perf_counter()
    found: tuple[FoundFault, ...] = ()
    outcome: Outcome = "passed"
    reason: str | None = None
    crash: str | None = None
    numbers: dict[str, float] = {}
    try:
        with panics_as_errors():
            numbers = dict(check.run(target) or {})
    except NotChecked as error:
        outcome, reason = "skipped", str(error)
    except Undecided as error:
        outcome, reason = "undecided", str(error)
    except FaultFound as error:
        outcome, reason, found, numbers = "failed", str(error), error.faults, dict(error.numbers)
    except (Exception, SystemExit) as error:  # a crash, which costs no other check
        if ended_by(error) is not None:
            raise
        outcome, reason, crash = "error", last_line(error), whole_traceback(error)
    return CheckRecord(check.name, outcome, reason, time.perf_counter() - started, numbers, crash), found
