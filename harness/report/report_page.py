"""A report as an HTML page: the verdict, the faults, what is seen in pictures, and every check with its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pruning import PrunePlan

from .divergence import divergence_picture, is_of_a_layer
from .groups import LONGEST_REASON, Group, counted_outcomes, group_and_property, groups, reason_of
from .outcomes import CheckRecord, limited_number
from .page import made_with, page, plan_strip
from .report import Report
from .terminal import shortened
from .words import (
    CAME_TO_NOTHING,
    CRASHED,
    FINDINGS,
    NO_CAUSE,
    UNDECIDED,
    advice,
    coverage_rows,
    failed_rows,
    fault_titles,
    open_rows,
    plan_and_source,
    skipped_rows,
    undecided_rows,
)

# The numbers of a check that have columns of their own.
_IN_COLUMNS = ("difference", "relative", "allowed")


@dataclass(frozen=True)
class _Row:
    """A check: what it measured beside what is allowed, its other numbers, and why it did not pass."""

    name: str
    outcome: str
    measured: str
    seconds: str
    others: str
    reason: str | None


def report_page(report: Report) -> str:
    """Return the page of a report."""
    return page(
        "report.html",
        report=report,
        verdict=report.verdict_text.partition(": "),
        coverage=coverage_rows(report),
        undecided=UNDECIDED,
        unchecked=open_rows(report),
        crashed_title=CRASHED,
        crashed=report.crashed_rows,
        undecided_title=CAME_TO_NOTHING,
        undecided_checks=undecided_rows(report),
        outcomes=counted_outcomes(report.checks),
        advice=list(advice(report)),
        faults=list(zip(fault_titles(report), report.faults, strict=True)),
        no_cause=NO_CAUSE,
        failed=failed_rows(report),
        skipped=skipped_rows(report),
        findings=FINDINGS,
        plan=plan_and_source(report),
        strip=plan_strip(PrunePlan.from_dict(report.plan), report.environment.get("layers")),
        picture=divergence_picture(report),
        groups=[
            (group, _of_allowed(_closest(group)), [_row(check) for check in group.checks])
            for group in groups(report.checks)
        ],
        environment=report.environment,
        made_with=made_with(report.environment),
    )


def _row(check: CheckRecord) -> _Row:
    numbers = check.numbers
    layers = [share for name, share in numbers.items() if is_of_a_layer(name)]
    others = [
        f"{name} {_short(number)}"
        for name, number in numbers.items()
        if name not in _IN_COLUMNS and not is_of_a_layer(name)
    ]
    if layers:
        others.append(f"behind {len(layers)} sub-layers at most {_short(max(layers, key=_size))}")
    return _Row(
        name=group_and_property(check.name)[1],
        outcome=check.outcome,
        measured=_of_allowed(_limited(check)),
        seconds=f"{check.seconds:.1f}",
        others=", ".join(others),
        reason=None if check.outcome == "passed" else shortened(reason_of(check), LONGEST_REASON),
    )


def _limited(check: CheckRecord) -> tuple[float, float] | None:
    """Return what a check measured and what is allowed; None if it has no such number."""
    measured, allowed = check.numbers.get(limited_number(check.numbers)), check.numbers.get("allowed")
    return None if measured is None or allowed is None else (measured, allowed)


def _closest(group: Group) -> tuple[float, float] | None:
    """Return what came closest to what is allowed, or went furthest beyond."""
    measured = [limited for check in group.checks if (limited := _limited(check)) is not None]
    return max(measured, key=lambda pair: _size(pair[0] / pair[1] if pair[1] else pair[0]), default=None)


def _of_allowed(limited: tuple[float, float] | None) -> str:
    return "" if limited is None else f"{_short(limited[0])} of {_short(limited[1])}"


def _size(number: float) -> float:
    """Return how large a difference is: what is no number is larger than any."""
    return math.inf if math.isnan(number) else number


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
