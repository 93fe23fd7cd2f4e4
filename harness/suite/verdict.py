"""What a run of the suite comes to: pytest calls it green when nothing failed, also where nothing was decided."""

from __future__ import annotations

from typing import Final

import pytest

from harness.report.report import PARTS

from .causes import carried_code

UNDECIDED: Final = "undecided"
"""The property of a test whose check looked and could not decide; its value is the reason."""

_TEST: Final = "test_property["


class Verdict:
    """A plugin of pytest that makes a run fail which nothing failed in, and which leaves the checkpoint undecided.

    It is undecided if nothing failed, and a check was undecided, or if, of keys, bytes or logits, all tests that ran
    were skipped. What nobody asked for, by -k, -m or --lf, is not missed.
    """

    def __init__(self, *, allow_partial: bool = False) -> None:
        self._allow_partial = allow_partial
        self._outcomes: dict[str, str] = {}
        self._undecided: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test came to; with pytest-xdist, too, this is called where the run is summed up."""
        _, found, name = report.nodeid.partition(_TEST)
        if not found or report.when == "teardown":
            return
        name = name.removesuffix("]")
        self._outcomes[name] = report.outcome
        if any(key == UNDECIDED for key, _ in report.user_properties):
            self._undecided.add(name)

    @property
    def open(self) -> list[str]:
        """What is left undecided, in words; nothing where a test failed, or where that is accepted."""
        if self._allow_partial or "failed" in self._outcomes.values():
            return []
        of_parts = {
            part: {each for name, each in self._outcomes.items() if looks(name)} for part, looks in PARTS.items()
        }
        parts = [part for part, outcomes in of_parts.items() if outcomes == {"skipped"}]
        unchecked = [f"{' and '.join(parts)} could not be checked"] if parts else []
        count = len(self._undecided)
        return unchecked + ([f"{count} of {len(self._outcomes)} checks could not decide"] if count else [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let a run that is undecided end as one with a failure does."""
        if session.exitstatus == pytest.ExitCode.OK and self.open:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say why, and what would accept it; and whether the code that the checkpoint carries explains failures."""
        failed = [name for name, outcome in self._outcomes.items() if outcome == "failed"]
        if lines := carried_code(terminalreporter.config, failed):
            terminalreporter.section("cause", sep="=", red=True)
            for line in lines:
                terminalreporter.line(line)
        if self.open:
            terminalreporter.section("undecided", sep="=", yellow=True)
            terminalreporter.line(f"undecided: {'; '.join(self.open)}: see the tests that were skipped (-rs)")
            terminalreporter.line("--allow-partial accepts what was checked as enough")
