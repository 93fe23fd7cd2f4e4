"""What the suite says of failures beyond each test: whether the code that the checkpoint carries is their one cause."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from harness.checks.check import Check
from harness.judge.carried_code import family_of_outdated_code, told_apart
from harness.judge.runner import run_check, run_checks
from harness.report.outcomes import FoundFault
from harness.system.libraries import quiet_libraries

from .preparing import prepared


def carried_code(config: pytest.Config, failed: Collection[str]) -> list[str]:
    """Return cause, evidence and remedy of carried code that is at fault for tests that failed; no lines if it is not.

    Outdated code alone is looked into: the checks of a load that failed run again, as it is and with the present code.
    """
    subject, checks = prepared(config)
    chosen = [check for check in checks if check.mode is not None and check.name in failed]
    if not chosen or family_of_outdated_code(subject) is None:
        return []
    faults: list[FoundFault] = []

    def diagnose(_: object) -> None:
        found, _judged = told_apart(subject, chosen, run_checks(subject, chosen))
        faults.extend(found)

    with quiet_libraries():
        record, _ = run_check(Check("diagnosis.carried-code", diagnose), None)
    if record.outcome == "error":
        return [f"crashed: {record.name}: {record.reason}"]
    return [line for each in faults for line in (each.cause, *each.evidence, f"remedy: {each.remedy}")]
