"""The record of a judgement under one set of packages, and rows that set several beside one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.report.groups import group_and_property
from harness.report.outcomes import EXIT_CODES, FoundFault, Verdict
from harness.report.report import Report
from harness.report.terminal import and_more
from harness.report.words import open_rows

COULD_NOT_RUN: Final = "could not run"
_EXIT_CODE: Final = 2
"""Of what could not run."""
_NOT_RUN: Final = "-"


@dataclass(frozen=True)
class SetRecord:
    """A judgement under one set of packages.

    `packages` is the set as it was asked for; `versions` what the judging process saw of it, by package. `report` is
    None where there is no judgement, and `reason` then says why, in one line.
    """

    packages: str
    versions: Mapping[str, str]
    report: Report | None
    reason: str | None
    seconds: float

    def __post_init__(self) -> None:
        if (self.report is None) == (self.reason is None):
            raise ValueError("it has neither a report nor a reason, or both")

    @property
    def verdict(self) -> Verdict | Literal["could not run"]:
        """The report's verdict, or `COULD_NOT_RUN`."""
        return COULD_NOT_RUN if self.report is None else self.report.verdict

    @property
    def exit_code(self) -> int:
        """What `check` would have ended with."""
        return _EXIT_CODE if self.report is None else EXIT_CODES[self.report.verdict]

    def outcomes(self) -> dict[str, str]:
        """Return what each check came to, by its name."""
        return {} if self.report is None else {check.name: check.outcome for check in self.report.checks}

    @property
    def came_to(self) -> str:
        """The verdict as a sentence, or why there is none."""
        return f"{COULD_NOT_RUN}: {self.reason}" if self.report is None else self.report.verdict_text

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {
            "packages": self.packages,
            "versions": dict(self.versions),
            "verdict": self.verdict,
            "report": None if self.report is None else self.report.to_dict(),
            "reason": self.reason,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Row:
    """Checks that came to the same under each set, and what that is: one word a set."""

    checks: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first check, and how many more there are."""
        return and_more(self.checks[0], len(self.checks))


def check_rows(sets: Sequence[SetRecord]) -> list[Row]:
    """Return a row for all checks of one group that came to the same under each set."""
    outcomes = [record.outcomes() for record in sets]
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in dict.fromkeys(name for each in outcomes for name in each):
        row = tuple(each.get(name, _NOT_RUN) for each in outcomes)
        alike.setdefault((group_and_property(name)[0], row), []).append(name)
    return [Row(tuple(names), row) for (_, row), names in alike.items()]


def package_rows(sets: Sequence[SetRecord]) -> list[tuple[str, ...]]:
    """Return a row for each package that a set names or installs: the version under each."""
    names = dict.fromkeys(name for record in sets for name in record.versions)
    return [(name, *(_version(record, name) for record in sets)) for name in names]


def _version(record: SetRecord, name: str) -> str:
    """Return the version of a package under a set; of one that only another set names, as far as the report has it."""
    elsewhere = {} if record.report is None else record.report.environment.get("versions") or {}
    return record.versions.get(name) or elsewhere.get(name) or _NOT_RUN


def faults(sets: Sequence[SetRecord]) -> Iterator[tuple[str, FoundFault]]:
    """Yield each fault once, with the sets under which it is found; family and id say whether it is the same."""
    found: dict[tuple[str, str], tuple[FoundFault, list[str]]] = {}
    for record in sets:
        for fault in () if record.report is None else record.report.faults:
            found.setdefault((fault.family, fault.id), (fault, []))[1].append(record.packages)
    for fault, packages in found.values():
        yield " and ".join(packages), fault


def unchecked_rows(sets: Sequence[SetRecord]) -> list[tuple[str, str]]:
    """Return, for each set under which the verdict is undecided, what keeps it open, crashes too, and why."""
    return [
        (f"{part} under {record.packages}", why)
        for record in sets
        if record.report is not None and record.verdict == "undecided"
        for part, why in open_rows(record.report)
    ]
