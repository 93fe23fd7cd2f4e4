"""One test of each property of the checkpoint under test."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.checks.check import Check, FaultFound, NotChecked
from harness.quiet import quiet_libraries


def test_property(check: Check, target: Callable[[Check], Any], request: pytest.FixtureRequest) -> None:
    """The checkpoint has this property, in this way of loading it."""
    found = None
    try:
        with quiet_libraries():
            numbers = check.run(target(check)) or {}
    except NotChecked as reason:
        pytest.skip(str(reason))
    except FaultFound as error:
        found = error
    if found is not None:  # out of the `except`: pytest would tell of the cause, too, and that frames are hidden
        remedies = "\n".join(f"{fault.family}: {fault.remedy}" for fault in found.faults)
        pytest.fail(f"{found}\n{remedies}", pytrace=False)
    # As the fixture `record_property` does, which warns of --junitxml; whatever reads its files reads properties.
    request.node.user_properties.extend(numbers.items())
