"""What stock passes, ours passes: compare the outcomes of the same tests on two classes."""

from collections.abc import Collection, Mapping

import pytest

PASSED = "passed"
EVERY_PART = ", every part"


class Outcomes:
    """A plugin of pytest that keeps each test's outcome: `passed`, `failed` or `skipped`; and how it failed.

    A test fails if a part of it (`subTest`) does. Whether a part was skipped is an outcome of its own, `test, every
    part`: how many parts there are may differ, as between models of more and fewer parameters.
    """

    def __init__(self) -> None:
        self.by_class: dict[str, dict[str, str]] = {}
        self.tracebacks: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the report of one phase (setup, call, teardown) of a test, or of a part of it."""
        _, class_name, test = report.nodeid.rsplit("::", 2)
        if isinstance(report, pytest.SubtestReport) and report.outcome == "skipped":
            test += EVERY_PART
        tests = self.by_class.setdefault(class_name, {})
        if report.outcome != PASSED and tests.get(test) != "failed":
            tests[test] = report.outcome
            self.tracebacks[f"{class_name}::{test}"] = report.longreprtext
        for name in (test, test.removesuffix(EVERY_PART) + EVERY_PART):
            tests.setdefault(name, PASSED)


def differences(stock: Mapping[str, str], ours: Mapping[str, str], exceptions: Collection[str]) -> list[str]:
    """Return, one line each, what is against the rule that ours passes what stock passes.

    `stock` and `ours` give each test's outcome; `exceptions` are tests that ours need not pass. One that is not needed
    is a line, too.
    """
    lines = [] if stock else ["no test of the stock model ran"]
    needed = set()
    for test, outcome in stock.items():
        got = ours.get(test, "not run")
        if outcome == PASSED != got:
            if (whole := test.removesuffix(EVERY_PART)) in exceptions:
                needed.add(whole)
            else:
                lines.append(f"{test}: stock passed, but ours {got}")
    needless = sorted(set(exceptions) - needed)
    return lines + [f"{test}: is an exception, but ours passes it, or stock does not" for test in needless]
