"""The record of a judgement: what was checked, what was found, and the verdict. JSON is the truth, all else a view."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from harness.errors import CannotRun

from .notebook import NotebookRecord, Summary

SCHEMA = 2
# 0.1.0 wrote the first: it has no tracebacks, and neither of the outcomes "error" and "undecided".
_READABLE = (1, 2)

FAMILIES = (
    "files", "config", "class", "plan", "keys", "tied-head", "code", "residual", "gate", "buffers", "cache",
    "precision", "quantisation", "offload", "tokenizer", "padding", "adapter", "values", "unexplained",
)  # fmt: skip

Outcome = Literal["passed", "failed", "error", "undecided", "skipped"]
Verdict = Literal["sound", "faulty", "undecided"]

EXIT_CODES: Mapping[Verdict, int] = {"sound": 0, "faulty": 1, "undecided": 3}


@dataclass(frozen=True)
class FoundFault:
    """A fault of what is judged, in words for its owner.

    `family` is one of `FAMILIES`, `id` a short name of the fault, `cause` one sentence, `evidence`
    what was measured, `remedy` one sentence to act on.
    """

    family: str
    id: str
    cause: str
    evidence: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class CheckRecord:
    """What one check came to; `reason` says why it did not pass, `numbers` are what it measured.

    The outcome "error" is a crash of the check: `reason` is the last line of its `traceback`, which others do not have.
    """

    name: str
    outcome: Outcome
    reason: str | None
    seconds: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    traceback: str | None = None


def limited_number(numbers: Mapping[str, float]) -> str:
    """Return the name of the number that `allowed` is the limit of: by choice the relative one."""
    return "relative" if "relative" in numbers else "difference"


@dataclass(frozen=True)
class Coverage:
    """What a verdict rests on: `bytes` were compared with the "base", with the "manifest", or not at all (None)."""

    keys: bool
    bytes: Literal["base", "manifest"] | None
    logits: bool
    partial_allowed: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether keys, bytes and logits were all checked."""
        return self.keys and self.bytes is not None and self.logits


@dataclass(frozen=True, repr=False)
class Report(NotebookRecord):
    """A judgement. `plan` is the plan that was meant; `environment` says where, and with what, it was judged."""

    checkpoint: str
    base: str | None
    plan: Mapping[str, list[int]]
    checks: tuple[CheckRecord, ...]
    coverage: Coverage
    faults: tuple[FoundFault, ...]
    findings: tuple[str, ...]
    environment: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """`"faulty"` if a check failed, `"sound"` if enough was checked and nothing crashed, else `"undecided"`."""
        outcomes = {check.outcome for check in self.checks}
        if self.faults or "failed" in outcomes:
            return "faulty"
        if "error" in outcomes:
            return "undecided"
        if self.coverage.partial_allowed:
            return "sound" if self.coverage.is_complete or "passed" in outcomes else "undecided"
        return "sound" if self.coverage.is_complete and "undecided" not in outcomes else "undecided"

    def summary(self) -> Summary:
        """Return what people see first: verdict, plan, counts, faults."""
        from .report_view import report_summary  # which views this record

        return report_summary(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each check, the fields of its `CheckRecord`."""
        return [asdict(check) for check in self.checks]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        content = asdict(self)
        order = ("checkpoint", "base", "plan", "checks", "coverage", "faults", "findings", "environment")
        return {"schema": SCHEMA, "verdict": self.verdict, **{name: content[name] for name in order}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        schema = content.get("schema") if isinstance(content, Mapping) else None
        if schema not in _READABLE:
            raise ValueError(f"not a report of schema {' or '.join(map(str, _READABLE))}")
        try:
            report = cls(
                checkpoint=content["checkpoint"],
                base=content["base"],
                plan=content["plan"],
                checks=tuple(CheckRecord(**check) for check in content["checks"]),
                coverage=Coverage(**content["coverage"]),
                faults=tuple(
                    FoundFault(**{**fault, "evidence": tuple(fault["evidence"])}) for fault in content["faults"]
                ),
                findings=tuple(content["findings"]),
                environment=content["environment"],
            )
        except KeyError as error:
            raise ValueError(f"not a report of schema {schema}: it has no {error}") from None
        except TypeError as error:
            raise ValueError(f"not a report of schema {schema}: {error}") from None
        for name, is_right in _types(report).items():
            if not is_right:
                raise ValueError(f"not a report of schema {schema}: {name} holds something else than it should")
        return report

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a report's JSON file; raises CannotRun, naming it."""
        content = read_record(path, "report")
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise CannotRun(f"{path} is no report of prunecheck: {error}") from None


def _types(report: Report) -> dict[str, bool]:
    """Return for each part of a report that was read whether its values have the types of the schema."""
    texts = [part for fault in report.faults for part in (fault.family, fault.id, fault.cause, fault.remedy)]
    texts += [line for fault in report.faults for line in fault.evidence]
    return {
        "checkpoint": isinstance(report.checkpoint, str),
        "base": isinstance(report.base, str | None),
        "plan": isinstance(report.plan, Mapping),
        "checks": all(map(_is_check, report.checks)),
        "faults": all(isinstance(text, str) for text in texts),
        "findings": all(isinstance(finding, str) for finding in report.findings),
        "environment": isinstance(report.environment, Mapping),
    }


def _is_check(check: CheckRecord) -> bool:
    if not isinstance(check.numbers, Mapping) or check.outcome not in get_args(Outcome):
        return False
    numbers = all(isinstance(number, int | float) for number in (check.seconds, *check.numbers.values()))
    texts = all(isinstance(text, str | None) for text in (check.reason, check.traceback))
    return numbers and texts and isinstance(check.name, str)


def read_record(path: Path, what: str = "record") -> Any:
    """Return what the JSON file of a report or benchmark holds; raises CannotRun, naming it, for no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise CannotRun(f"{path} is no {what} of prunecheck: it is nested too deeply") from None
    except ValueError as error:
        raise CannotRun(f"{path} is no {what} of prunecheck: {error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a report's file, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a report's file; raises CannotRun, in one line, if that cannot be done.

    A file is the old or the new one, whatever happens; what is none, such as a pipe, is written to.
    """
    place = Path(os.path.realpath(path))  # a link stays one, and one to itself leads nowhere
    is_file = place.is_file() or not (place.exists() or place.is_symlink())
    new = place.with_name(f".{place.name}.prunecheck-new") if is_file else place
    try:
        new.write_bytes(content)
        if new != place:
            new.replace(place)
    except OSError as error:
        if new != place:
            with suppress(OSError):  # where nothing could be written, there is nothing
                new.unlink()
        raise CannotRun(f"{path} cannot be written: {error.strerror}") from None


def require_writable(path: Path | None) -> None:
    """Raise CannotRun, before any work, if a file of the report has no directory to be written to."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        why = "it is a directory" if path.is_dir() else f"{path.parent} is no directory"
        raise CannotRun(f"{path} cannot be written: {why}")
