"""Two reports side by side: what another version of a library, or another plan, changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from .divergence import is_of_a_layer
from .groups import groups
from .outcomes import CheckRecord, FoundFault, Outcome, Verdict, limited_number
from .report import Report

SCHEMA = 1

_FROM_BEST: Final[tuple[Verdict, ...]] = ("sound", "undecided", "faulty")

_GROWTH = 10
# What is smaller is the rounding of float32, and its growth tells nothing; without this, all growth from 0 would.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Change:
    """What something was before, and what it is after; None where it was not there."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class CheckChange:
    """A check that came to something else; None where it did not run. `reason` is why it is so, or was."""

    name: str
    before: Outcome | None
    after: Outcome | None
    reason: str | None

    @property
    def is_regression(self) -> bool:
        """Whether it passed, and passes no more, or crashes now: what a crash hides may be anything."""
        return self.before == "passed" or self.after == "error"


@dataclass(frozen=True)
class NumberChange:
    """A number of a check that grew more than tenfold, or crossed `allowed`, where the check has a limit for it."""

    check: str
    number: str
    before: float
    after: float
    allowed: float | None


@dataclass(frozen=True)
class Comparison:
    """What changed from one report to another.

    `environment` holds only what differs, `seconds` the groups that both have; `faults` and `findings` those
    that are in one of the two alone. Faults are the same if family and id are: causes and evidence name numbers.
    """

    checkpoint: Change
    base: Change
    plan: Change
    verdict: Change
    environment: tuple[Change, ...]
    checks: tuple[CheckChange, ...]
    numbers: tuple[NumberChange, ...]
    seconds: tuple[Change, ...]
    faults: tuple[Change, ...]
    findings: tuple[Change, ...]

    @property
    def is_regression(self) -> bool:
        """Whether the verdict got worse, a check that passed does not any more, or one crashes that did not."""
        worse = _FROM_BEST.index(self.verdict.after) > _FROM_BEST.index(self.verdict.before)
        return worse or any(change.is_regression for change in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON holds it."""
        return {"schema": SCHEMA, "is_regression": self.is_regression, **asdict(self)}


def compare_reports(before: Report, after: Report) -> Comparison:
    """Return what changed from `before` to `after`."""
    return Comparison(
        checkpoint=Change("checkpoint", before.checkpoint, after.checkpoint),
        base=Change("base", before.base, after.base),
        plan=Change("plan", before.plan, after.plan),
        verdict=Change("verdict", before.verdict, after.verdict),
        environment=tuple(_differing(_flat(before.environment), _flat(after.environment))),
        checks=tuple(_check_changes(_checks(before), _checks(after))),
        numbers=tuple(_number_changes(_checks(before), _checks(after))),
        seconds=tuple(_seconds(before, after)),
        faults=tuple(_in_one_alone(_faults(before), _faults(after))),
        findings=tuple(_in_one_alone(_findings(before), _findings(after))),
    )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _in_one_alone(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    return (change for change in _differing(before, after) if change.before is None or change.after is None)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, its names joined by dots: `versions.torch`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _faults(report: Report) -> dict[str, FoundFault]:
    return {f"{fault.family} ({fault.id})": fault for fault in report.faults}


def _findings(report: Report) -> dict[str, str]:
    return {finding: finding for finding in report.findings}


def _checks(report: Report) -> dict[str, CheckRecord]:
    return {check.name: check for check in report.checks}


def _check_changes(before: Mapping[str, CheckRecord], after: Mapping[str, CheckRecord]) -> Iterator[CheckChange]:
    for change in _differing(before, after):
        was, now = (None if check is None else check.outcome for check in (change.before, change.after))
        if was != now:
            reasons = (check.reason for check in (change.after, change.before) if check is not None)
            yield CheckChange(change.name, was, now, next(filter(None, reasons), None))


def _number_changes(before: Mapping[str, CheckRecord], after: Mapping[str, CheckRecord]) -> Iterator[NumberChange]:
    for name in (name for name in before if name in after):
        was, now = before[name].numbers, after[name].numbers
        for number in (number for number in was if number in now and not is_of_a_layer(number)):
            both = {**was, **now}
            allowed = both.get("allowed") if number == limited_number(both) else None
            crossed = allowed is not None and (was[number] <= allowed) != (now[number] <= allowed)
            if crossed or _grew(was[number], now[number]):
                yield NumberChange(name, number, was[number], now[number], allowed)


def _grew(before: float, after: float) -> bool:
    if not math.isfinite(after):
        return math.isfinite(before)
    return abs(after) > _GROWTH * max(abs(before), _ROUNDING)


def _seconds(before: Report, after: Report) -> Iterator[Change]:
    new = {group.name: group for group in groups(after.checks)}
    for group in groups(before.checks):
        if group.name in new:
            yield Change(group.name, group.seconds, new[group.name].seconds)
