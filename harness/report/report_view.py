"""A report for the terminal: the verdict, a row for each group of checks, and the reasons, each told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .groups import counted_outcomes, groups
from .notebook import Summary, plan_text
from .report import FoundFault, Report
from .terminal import pairs, plain, section, stdout_console
from .words import (
    CAME_TO_NOTHING,
    CRASHED,
    FINDINGS,
    NO_CAUSE,
    UNDECIDED,
    advice,
    crashed_rows,
    failed_rows,
    fault_titles,
    open_rows,
    plan_and_source,
    skipped_rows,
    tracebacks,
    undecided_rows,
    verdict_text,
)

VERDICT_STYLES = {"sound": "bold green", "faulty": "bold red", "undecided": "bold yellow"}
_ALARMING = ("failed", "error")


def print_report(report: Report, *, console: Console | None = None, debug: bool = False) -> None:
    """Write a report for people to `console`, by default stdout; `debug`: with the whole traceback of each crash."""
    sections = [*_crashed(report, debug), _summary(report), _table(report), *_failed(report)]
    sections += [*_undecided_checks(report), *_skipped(report), *_faults(report), *_findings(report)]
    sections += [*_undecided(report)]
    (console or stdout_console()).print(Group(*sections))


def report_summary(report: Report) -> Summary:
    """Return what a notebook shows of a report: verdict, plan, counts, faults, findings; in HTML the groups, too."""
    counts, outcomes = Counter(check.outcome for check in report.checks), counted_outcomes(report)
    facts = [
        ("checkpoint", report.checkpoint),
        ("base", report.base or "none was given"),
        ("plan", plan_text(report.plan)),
        ("checks", ", ".join(f"{counts[outcome]} {outcome}" for outcome in outcomes)),
        *((f"crashed: {name}", reason) for name, reason in crashed_rows(report)),
    ]
    for fault in report.faults:
        facts += [(f"fault: {fault.family}", fault.cause), ("remedy", fault.remedy)]
    facts += [("finding", finding) for finding in report.findings]
    rows = [
        [group.title, *(str(group.count(outcome)) for outcome in outcomes), f"{group.seconds:.1f}"]
        for group in groups(report)
    ]
    return Summary(verdict_text(report), facts, ("checks", *outcomes, "seconds"), rows)


def _summary(report: Report) -> RenderableType:
    return pairs(
        ("checkpoint:", report.checkpoint),
        ("base:", report.base or "none was given"),
        ("plan:", plan_and_source(report)),
        ("verdict:", plain(verdict_text(report), VERDICT_STYLES[report.verdict])),
    )


def _table(report: Report) -> Table:
    table = Table()
    table.add_column("checks", overflow="fold")
    outcomes = counted_outcomes(report)
    for title in (*outcomes, "seconds"):
        table.add_column(title, justify="right", overflow="fold")
    for group in groups(report):
        if not group.is_skipped_mode:  # those are told of below, in one line for each reason
            counts = ((outcome, group.count(outcome)) for outcome in outcomes)
            cells = (Text(str(n), style="bold red" if n and outcome in _ALARMING else "") for outcome, n in counts)
            table.add_row(plain(group.title), *cells, f"{group.seconds:.1f}")
    return table


def _crashed(report: Report, debug: bool) -> Iterator[RenderableType]:
    """Yield the crashes, which stand before all else: nothing below them can be taken for the whole."""
    if not (rows := crashed_rows(report)):
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
