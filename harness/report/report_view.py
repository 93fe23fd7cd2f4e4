"""A report for the terminal: the verdict, a row for each group of checks, and the reasons, each told once."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .groups import counted_outcomes, groups
from .outcomes import FoundFault
from .report import Report
from .terminal import fitting, pairs, plain, section, stdout_console
from .words import (
    CAME_TO_NOTHING,
    CRASHED,
    FINDINGS,
    NO_CAUSE,
    UNDECIDED,
    advice,
    failed_rows,
    fault_titles,
    open_rows,
    plan_and_source,
    skipped_rows,
    tracebacks,
    undecided_rows,
)

VERDICT_STYLES = {"sound": "bold green", "faulty": "bold red", "undecided": "bold yellow"}
_ALARMING = ("failed", "error")


def print_report(report: Report, *, console: Console | None = None, debug: bool = False) -> None:
    """Write a report for people to `console`, by default stdout; `debug`: with the whole traceback of each crash."""
    out = console or stdout_console()
    table = fitting(out, _table(report, Table()), _table(report, Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))))
    sections = [*_crashed(report, debug), _summary(report), table, *_failed(report)]
    sections += [*_undecided_checks(report), *_skipped(report), *_faults(report), *_findings(report)]
    sections += [*_undecided(report)]
    out.print(Group(*sections))


def _summary(report: Report) -> RenderableType:
    return pairs(
        ("checkpoint:", report.checkpoint),
        ("base:", report.base or "none was given"),
        ("plan:", plan_and_source(report)),
        ("verdict:", plain(report.verdict_text, VERDICT_STYLES[report.verdict])),
    )


def _table(report: Report, table: Table) -> Table:
    """Fill a table with a row for each group of checks."""
    table.add_column("checks", overflow="fold")
    outcomes = counted_outcomes(report.checks)
    for title in (*outcomes, "seconds"):
        table.add_column(title, justify="right", overflow="fold")
    for group in groups(report.checks):
        if not group.is_skipped_mode:  # those are told of below, in one line for each reason
            counts = ((outcome, group.count(outcome)) for outcome in outcomes)
            cells = (Text(str(n), style="bold red" if n and outcome in _ALARMING else "") for outcome, n in counts)
            table.add_row(plain(group.title), *cells, f"{group.seconds:.1f}")
    return table


def _crashed(report: Report, debug: bool) -> Iterator[RenderableType]:
    """Yield the crashes, which stand before all else: nothing below them can be taken for the whole."""
    if not (rows := report.crashed_rows):
        return
    yield Group(plain(CRASHED, "bold red"), pairs(*rows))
    for name, text in tracebacks(report) if debug else ():
        yield section(name, "bold", *map(plain, text.splitlines()))
    yield plain("")


def _failed(report: Report) -> Iterator[RenderableType]:
    if rows := failed_rows(report):
        yield section("failed", "bold red", pairs(*rows))


def _undecided_checks(report: Report) -> Iterator[RenderableType]:
    if rows := undecided_rows(report):
        yield section(CAME_TO_NOTHING, "bold yellow", pairs(*rows))


def _skipped(report: Report) -> Iterator[RenderableType]:
    if rows := skipped_rows(report):
        yield section("skipped", "bold yellow", pairs(*rows))


def _faults(report: Report) -> Iterator[RenderableType]:
    for title, fault in zip(fault_titles(report), report.faults, strict=True):
        yield section(title, "bold red", fault_table(fault))
    if report.verdict == "faulty" and not report.faults:
        yield section("fault", "bold red", plain(NO_CAUSE))


def fault_table(fault: FoundFault) -> Table:
    """Return cause, evidence and remedy of a fault."""
    evidence = [("evidence:" if number == 0 else "", line) for number, line in enumerate(fault.evidence)]
    return pairs(("cause:", fault.cause), *evidence, ("remedy:", plain(fault.remedy, "bold")))


def _findings(report: Report) -> Iterator[RenderableType]:
    if report.findings:
        yield section(FINDINGS, "bold", pairs(*(("-", finding) for finding in report.findings)))


def _undecided(report: Report) -> Iterator[RenderableType]:
    if report.verdict != "undecided":
        return
    yield section(UNDECIDED, "bold yellow", pairs(*((f"{name}:", why) for name, why in open_rows(report))))
    if what_to_do := list(advice(report)):
        yield section("what to do", "bold", pairs(*what_to_do))
