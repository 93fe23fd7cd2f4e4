"""A comparison of two reports for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from pruning import PrunePlan

from .comparison import Change, CheckChange, Comparison, NumberChange
from .groups import group_and_property, group_title
from .outcomes import FoundFault
from .report_view import VERDICT_STYLES, fault_table
from .terminal import and_more, plain, section, shortened, stdout_console

_LONGEST_REASON = 200


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Write a comparison for people to `console`, by default stdout."""
    sections = [_summary(comparison), *what_changed(comparison), *_seconds(comparison), _conclusion(comparison)]
    (console or stdout_console()).print(Group(*sections))


def what_changed(comparison: Comparison) -> list[RenderableType]:
    """Return a section for each kind of thing that changed: environment, checks, numbers, faults, findings."""
    sections = [*_environment(comparison), *_checks(comparison), *_numbers(comparison)]
    return [*sections, *_faults(comparison), *_findings(comparison)]


def _summary(comparison: Comparison) -> Table:
    table = _table("", "before", "after")
    for change in (comparison.checkpoint, comparison.base):
        table.add_row(plain(change.name), *(plain(value or "none was given") for value in _values(change)))
    table.add_row(plain("plan"), *(plain(PrunePlan.from_dict(value)) for value in _values(comparison.plan)))
    verdicts = (plain(value, VERDICT_STYLES[value]) for value in _values(comparison.verdict))
    table.add_row(plain("verdict"), *verdicts)
    return table


def _environment(comparison: Comparison) -> Iterator[RenderableType]:
    table = _table("", "before", "after")
    for change in comparison.environment:
        table.add_row(plain(change.name), *(plain(_said(value)) for value in _values(change)))
    if comparison.environment:
        yield section("what they were judged with", "bold", table)


def _checks(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield one row for all checks that changed alike: of one group, where what is lost or fails must be seen."""
    alike: dict[tuple[str, str, str, str], list[CheckChange]] = {}
    for change in comparison.checks:
        failed = change.after == "failed"
        group = group_and_property(change.name)[0] if change.is_regression or failed else ""
        # The failures of a group differ in numbers: the first speaks for all.
        reason = "" if failed else change.reason or ""
        alike.setdefault((group, change.before or "not run", change.after or "not run", reason), []).append(change)
    table = _table("check", "before", "after", "why")
    for (_, before, after, _), changes in alike.items():
        style = "bold red" if changes[0].is_regression else ""
        reason = shortened(changes[0].reason or "", _LONGEST_REASON)
        name = plain(and_more(changes[0].name, len(changes)))
        table.add_row(name, plain(before), plain(after, style), plain(reason))
    if alike:
        yield section("checks that came to something else", "bold", table)


def _numbers(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield one row for each number of a group: its largest, which tells most."""
    alike: dict[tuple[str, str], list[NumberChange]] = {}
    for change in comparison.numbers:
        alike.setdefault((group_and_property(change.check)[0], change.number), []).append(change)
    table = _table("check", "number", "before", "after", "allowed")
    for changes in alike.values():
        largest = max(changes, key=lambda change: math.inf if math.isnan(change.after) else abs(change.after))
        table.add_row(
            plain(and_more(largest.check, len(changes))),
            plain(largest.number),
            f"{largest.before:.3g}",
            f"{largest.after:.3g}",
            "" if largest.allowed is None else f"{largest.allowed:.2g}",
        )
    if alike:
        yield section("numbers that grew more than tenfold, or crossed what is allowed", "bold", table)


def _faults(comparison: Comparison) -> Iterator[RenderableType]:
    for change in comparison.faults:
        if change.before is None:
            fault: FoundFault = change.after
            yield section(f"new fault: {change.name}", "bold red", fault_table(fault))
        else:
            yield section(f"fault that is gone: {change.name}", "bold green", plain(change.before.cause))


def _findings(comparison: Comparison) -> Iterator[RenderableType]:
    for title, findings in (
        ("new findings", [change.name for change in comparison.findings if change.before is None]),
        ("findings that are gone", [change.name for change in comparison.findings if change.after is None]),
    ):
        if findings:
            yield section(title, "bold", *map(plain, findings))


def _seconds(comparison: Comparison) -> Iterator[RenderableType]:
    table = _table("checks", "before", "after", "ratio")
    for change in comparison.seconds:
        ratio = f"{change.after / change.before:.2f}" if change.before else ""
        table.add_row(plain(group_title(change.name)), f"{change.before:.1f}", f"{change.after:.1f}", ratio)
    if comparison.seconds:
        remark = plain("One run each: what else the machine did is in these numbers, too.", "italic")
        yield section("seconds", "bold", table, remark)


def _conclusion(comparison: Comparison) -> RenderableType:
    if not comparison.is_regression:
        return section("no regression: whatever passed before passes still", "bold green")
    before, after = comparison.verdict.before, comparison.verdict.after
    lost = sum(change.before == "passed" for change in comparison.checks)
    crashed = sum(change.after == "error" for change in comparison.checks)
    verdict = f"{after} instead of {before}; " if after != before else ""
    crashes = f"; {crashed} crash now" if crashed else ""
    return section(f"regression: {verdict}{lost} of the checks that passed pass no more{crashes}", "bold red")


def _table(*titles: str) -> Table:
    table = Table()
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _values(change: Change) -> tuple[Any, Any]:
    return change.before, change.after


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
