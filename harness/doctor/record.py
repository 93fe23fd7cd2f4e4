"""What the doctor found: for each way of loading what was computed right or wrong, and the report behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.report.outcomes import CheckRecord
from harness.report.report import Report

if TYPE_CHECKING:  # it needs torch and transformers, which may be what is broken
    from harness.models.modes import LoadingMode

SCHEMA: Final = 1

Answer = Literal["right", "wrong", "undecided"]
EXIT_CODES: Final[Mapping[Answer, int]] = {"right": 0, "wrong": 1, "undecided": 3}

QUESTIONS: Final[Mapping[str, str]] = {"load": "load", "logits": "logits.", "cached steps": "cache."}
"""What is asked in each way of loading, and how the names of the checks that answer it begin behind the mode's."""


@dataclass(frozen=True)
class Way:
    """One way of loading: why it is not here, None if it is; and the answer to each question, in words."""

    name: str
    missing: str | None
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Checkup:
    """The answers for every way of loading, and the report of the judge that they are taken from."""

    ways: tuple[Way, ...]
    report: Report

    @classmethod
    def of(cls, modes: list[LoadingMode], report: Report) -> Checkup:
        """Sum up the checks of a report for each mode, and say which modes are missing here."""
        return cls(tuple(Way(mode.name, mode.missing, _answers(mode, report)) for mode in modes), report)

    @property
    def verdict(self) -> Answer:
        """`"wrong"` if anything computes wrong, `"undecided"` if anything could not be decided, else `"right"`."""
        if self.report.verdict == "faulty":
            return "wrong"
        answers = {answer for way in self.ways for answer in way.answers.values()}
        return "right" if answers == {"right"} and self.report.verdict == "sound" else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        ways = [asdict(way) for way in self.ways]
        return {"schema": SCHEMA, "verdict": self.verdict, "ways": ways, "report": self.report.to_dict()}


def _answers(mode: LoadingMode, report: Report) -> dict[str, Answer]:
    if mode.missing is not None:
        return {}
    return {
        question: _answer([check for check in report.checks if check.name.startswith(f"{mode.name}.{begins}")])
        for question, begins in QUESTIONS.items()
    }


def _answer(checks: list[CheckRecord]) -> Answer:
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes:
        return "wrong"
    return "right" if outcomes == {"passed"} else "undecided"
