"""What stock passes, ours passes: compare the outcomes of the same tests on two classes."""

from collections.abc import Iterable, Mapping

PASSED = "passed"


class Outcomes:
    """A plugin of pytest that keeps each test's outcome: `passed`, `failed` or `skipped`; and how it failed."""

    def __init__(self) -> None:
        self.by_class: dict[str, dict[str, str]] = {}
        self.tracebacks: dict[str, str] = {}

    def pytest_runtest_logreport(self, report) -> None:
        """Take the report of one phase (setup, call, teardown) of a test, or of a part of it."""
        _, class_name, test = report.nodeid.rsplit("::", 2)
        tests = self.by_class.setdefault(class_name, {})
        if report.outcome != PASSED and tests.get(test) != "failed":
            tests[test] = report.outcome
            self.tracebacks[report.nodeid] = report.longreprtext
        tests.setdefault(test, PASSED)


def differences(stock: Mapping[str, str], ours: Mapping[str, str], exceptions: Iterable[str]) -> list[str]:
    """Return, one line each, what is against the rule that ours passes what stock passes.

    `stock` and `ours` give each test's outcome; `exceptions` are tests that ours need not pass. One that is not needed
    is a line, too.
    """
    lines = [] if stock else ["no test of the stock model ran"]
    needless = set(exceptions)
    for test, outcome in sorted(stock.items()):
        got = ours.get(test, "not run")
        if outcome == PASSED != got:
            if test in needless:
                needless.remove(test)
            else:
                lines.append(f"{test}: stock passed, but ours {got}")
    return lines + [f"{test}: is an exception, but ours passes it, or stock does not" for test in sorted(needless)]
