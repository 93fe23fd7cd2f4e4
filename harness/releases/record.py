"""The records: a judgement under one set of packages, of several sets, and of a search. JSON is the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from harness.errors import CannotRun
from harness.report.comparison import Comparison, compare_reports
from harness.report.notebook import NotebookRecord, Summary
from harness.report.report import EXIT_CODES, Report, Verdict, read_record

SCHEMA = 1
COULD_NOT_RUN: Final = "could not run"
_EXIT_CODE: Final = 2
"""Of what could not run."""

Record = TypeVar("Record")


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

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        return _read("set", cls._read, content)

    @classmethod
    def _read(cls, content: Any) -> Self:
        report = content["report"]
        record = cls(
            packages=_text(content["packages"]),
            versions={_text(name): _text(release) for name, release in content["versions"].items()},
            report=None if report is None else Report.from_dict(report),
            reason=_text_or_none(content["reason"]),
            seconds=float(content["seconds"]),
        )
        if (record.report is None) == (record.reason is None):
            raise ValueError("it has neither a report nor a reason, or both")
        return record


@dataclass(frozen=True, repr=False)
class Matrix(NotebookRecord):
    """A checkpoint judged under several sets of packages, in the order in which they were asked for."""

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

    def summary(self) -> Summary:
        """Return what people see first."""
        from .view import matrix_summary  # which imports this module

        return matrix_summary(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a check and set: what it came to, and why."""
        return [
            {"packages": record.packages, "check": check.name, "outcome": check.outcome, "reason": check.reason}
            for record in self.judged
            if record.report is not None
            for check in record.report.checks
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        sets = [record.to_dict() for record in self.sets]
        return {"schema": SCHEMA, "kind": "matrix", "checkpoint": self.checkpoint, "base": self.base, "sets": sets}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        return _read("matrix", cls._read, content)

    @classmethod
    def _read(cls, content: Any) -> Self:
        known = _of_kind(content, "matrix")
        sets = tuple(map(SetRecord.from_dict, known["sets"]))
        return cls(_text(known["checkpoint"]), _text_or_none(known["base"]), sets)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a matrix's JSON file; raises CannotRun, naming it."""
        return _from_file(cls.from_dict, path, "matrix")


@dataclass(frozen=True, repr=False)
class Bisection(NotebookRecord):
    """A search for the release at which a judgement changes.

    `releases` are those that were searched, the oldest first; `judged` those that were looked at, by release. `last` is
    the newest that is judged as the first one, `changed` the oldest known to be judged otherwise. `keyword` chose the
    checks whose outcomes are compared; without it, verdicts are.
    """

    checkpoint: str
    base: str | None
    package: str
    keyword: str | None
    releases: tuple[str, ...]
    judged: Mapping[str, SetRecord]
    last: str
    changed: str

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

    def summary(self) -> Summary:
        """Return what people see first."""
        from .view import bisection_summary  # which imports this module

        return bisection_summary(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a release that was looked at."""
        return [
            {"release": release, "verdict": record.verdict, "reason": record.reason, "seconds": record.seconds}
            for release, record in self.judged.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it; the comparison, which follows from it, is there for readers alone."""
        return {
            "schema": SCHEMA,
            "kind": "bisection",
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

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        return _read("bisection", cls._read, content)

    @classmethod
    def _read(cls, content: Any) -> Self:
        known = _of_kind(content, "bisection")
        record = cls(
            checkpoint=_text(known["checkpoint"]),
            base=_text_or_none(known["base"]),
            package=_text(known["package"]),
            keyword=_text_or_none(known["keyword"]),
            releases=tuple(map(_text, known["releases"])),
            judged={_text(release): SetRecord.from_dict(each) for release, each in known["judged"].items()},
            last=_text(known["last"]),
            changed=_text(known["changed"]),
        )
        for release in (record.last, record.changed):
            if release not in record.releases or record.judged[release].report is None:
                raise ValueError(f"{release!r:.60} is not a release that was judged")
        return record

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a bisection's JSON file; raises CannotRun, naming it."""
        return _from_file(cls.from_dict, path, "bisection")


def _of_kind(content: Any, kind: str) -> Any:
    if content["kind"] != kind or content["schema"] != SCHEMA:
        raise ValueError(f"not a {kind} of schema {SCHEMA}")
    return content


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} stands where a text should")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _read(kind: str, read: Callable[[Any], Record], content: object) -> Record:
    """Return what `read` makes of JSON that may be anything; raises ValueError alone."""
    try:
        return read(content)
    except KeyError as error:
        raise ValueError(f"not a {kind} of schema {SCHEMA}: it has no {error}") from None
    except (TypeError, AttributeError, ValueError) as error:  # by what is in a value's place
        raise ValueError(f"not a {kind} of schema {SCHEMA}: {error}") from None


def _from_file(read: Callable[[object], Record], path: Path, kind: str) -> Record:
    try:
        return read(read_record(path, kind))
    except ValueError as error:
        raise CannotRun(f"{path} is not a {kind} of prunecheck: {error}") from None
