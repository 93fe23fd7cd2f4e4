"""One test of each property of the checkpoint under test."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.checks.check import Check
from harness.judge.runner import run_check
from harness.system.libraries import quiet_libraries

from .verdict import UNDECIDED


def test_property(check: Check, target: Callable[[Check], Any], request: pytest.FixtureRequest) -> None:
    """The checkpoint has this property, in this way of loading it."""
    with quiet_libraries():
        record, faults = run_check(check, target(check))
    reason = record.reason or ""
    # As the fixture `record_property` does, which warns of --junitxml; whatever reads its files reads properties.
    properties = request.node.user_properties
    if record.outcome == "error":
        pytest.fail(f"crashed: {reason}\n{record.traceback}", pytrace=False)
    if record.outcome == "failed":
        remedies = "\n".join(f"{fault.family}: {fault.remedy}" for fault in faults)
        pytest.fail(f"{reason}\n{remedies}", pytrace=False)
    if record.outcome == "undecided":
        properties.append((UNDECIDED, reason))
        pytest.skip(f"undecided: {reason}")
    if record.outcome == "skipped":
        pytest.skip(reason)
    properties.extend(record.numbers.items())
