"""The records of a matrix of packages, and of a search among releases. JSON is the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from harness.report.comparison import Comparison, compare_reports
from harness.report.notebook import NotebookRecord, Summary
from harness.report.outcomes import EXIT_CODES
from harness.report.schema import JsonRecord

from .set_record import SetRecord, check_rows


@dataclass(frozen=True, repr=False)
class Matrix(JsonRecord, NotebookRecord):
    """A checkpoint judged under several sets of packages, in the order in which they were asked for."""

    NAME: ClassVar = "matrix"
    KIND: ClassVar = "matrix"

    checkpoint: str
    base: str | None
    sets: tuple[SetRecord, ...]

    @property
    def exit_code(self) -> int:
        """1 if it is faulty under any set, else 2 if any could not run, else 3 if any is undecided, else 0."""
        return min((record.exit_code for record in self.sets if record.exit_code), default=0)

    @property
    def judged(self) -> tuple[SetRecord, ...]:
        """The sets under which there is a judgement."""
        return tuple(record for record in self.sets if record.report is not None)

    def facts(self) -> list[tuple[str, str]]:
        """Return what was judged."""
        return [("checkpoint", self.checkpoint), ("base", self.base or "none was given")]

    def verdict_rows(self) -> list[tuple[str, str]]:
        """Return each set with what it came to."""
        return [(record.packages, record.came_to) for record in self.sets]

    def summary(self) -> Summary:
        """Return what people see first: the verdict under each set; in HTML the checks, too."""
        columns = ("check", *(record.packages for record in self.judged))
        rows = [(row.title, *row.outcomes) for row in check_rows(self.judged)]
        title = ", ".join(f"{record.packages}: {record.verdict}" for record in self.sets)
        return Summary(title, [*self.facts(), *self.verdict_rows()], columns, rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a check and set: what it came to, and why."""
        return [
            {"packages": record.packages, "check": check.name, "outcome": check.outcome, "reason": check.reason}
            for record in self.judged
            if record.report is not None
            for check in record.report.checks
        ]

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has beside schema and kind."""
        sets = [record.to_dict() for record in self.sets]
        return {"checkpoint": self.checkpoint, "base": self.base, "sets": sets}


@dataclass(frozen=True, repr=False)
class Bisection(JsonRecord, NotebookRecord):
    """A search for the release at which a judgement changes.

    `releases` are those that were searched, the oldest first; `judged` those that were looked at, by release. `last` is
    the newest that is judged as the first one, `changed` the oldest known to be judged otherwise. `keyword` chose the
    checks whose outcomes are compared; without it, verdicts are.
    """

    NAME: ClassVar = "bisection"
    KIND: ClassVar = "bisection"

    checkpoint: str
    base: str | None
    package: str
    keyword: str | None
    releases: tuple[str, ...]
    judged: Mapping[str, SetRecord]
    last: str
    changed: str

    def __post_init__(self) -> None:
        for release in (self.last, self.changed):
            if release not in self.releases or release not in self.judged or self.judged[release].report is None:
                raise ValueError(f"{release!r:.60} is not a release that was judged")

    @property
    def between(self) -> tuple[str, ...]:
        """The releases between both, none of which could be judged: the change may have come with any of them."""
        return self.releases[self.releases.index(self.last) + 1 : self.releases.index(self.changed)]

    @property
    def exit_code(self) -> int:
        """0 if there is one release at which it changes, 3 if it may be one of several."""
        return EXIT_CODES["undecided"] if self.between else 0

    @cached_property
    def comparison(self) -> Comparison:
        """What changed from the report of `last` to that of `changed`."""
        before, after = self.judged[self.last].report, self.judged[self.changed].report
        if before is None or after is None:
            raise ValueError("only releases that were judged can be compared")
        return compare_reports(before, after)

    def facts(self) -> list[tuple[str, str]]:
        """Return what was judged, over which releases, and what was compared."""
        return [
            ("checkpoint", self.checkpoint),
            ("base", self.base or "none was given"),
            ("package", self.package),
            ("releases", f"{len(self.releases)}, from {self.releases[0]} to {self.releases[-1]}"),
            ("compared", "verdicts" if self.keyword is None else f"outcomes of the checks of -k {self.keyword}"),
        ]

    def answer(self) -> str:
        """Return the release at which it changes, in a sentence."""
        package, last, changed = self.package, self.last, self.changed
        what = "the verdict" if self.keyword is None else "what these checks find"
        if not self.between:
            return f"{what} changes at {package} {changed}; {last} is the last release before the change"
        names = ", ".join(self.between)
        return f"{what} changes after {package} {last} and no later than {changed}; {names} could not be judged"

    def release_rows(self) -> list[tuple[str, str]]:
        """Return each release that was looked at, with what it came to."""
        return [(release, record.came_to) for release, record in self.judged.items()]

    def summary(self) -> Summary:
        """Return what people see first: the answer, and each release that was judged."""
        return Summary(self.answer(), [*self.facts(), *self.release_rows()])

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a release that was looked at."""
        return [
            {"release": release, "verdict": record.verdict, "reason": record.reason, "seconds": record.seconds}
            for release, record in self.judged.items()
        ]

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has; the comparison, which follows from it, is there for readers alone."""
        return {
            "checkpoint": self.checkpoint,
            "base": self.base,
            "package": self.package,
            "keyword": self.keyword,
            "releases": list(self.releases),
            "judged": {release: record.to_dict() for release, record in self.judged.items()},
            "last": self.last,
            "changed": self.changed,
            "comparison": self.comparison.to_dict(),
        }
