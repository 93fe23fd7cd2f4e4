"""Judgements under several sets of packages for the terminal, and what their pages say, too."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table

from harness.report.comparison_view import what_changed
from harness.report.report_view import VERDICT_STYLES, fault_table
from harness.report.terminal import pairs, plain, section, stdout_console

from .record import Bisection, Matrix
from .set_record import COULD_NOT_RUN, SetRecord, check_rows, faults, package_rows, unchecked_rows

_STYLES = {**VERDICT_STYLES, COULD_NOT_RUN: "bold magenta", "failed": "bold red", "error": "bold magenta"}


def print_matrix(matrix: Matrix, *, console: Console | None = None) -> None:
    """Write a matrix for people to `console`, by default stdout."""
    verdicts = [(record.packages, plain(record.came_to, _STYLES[record.verdict])) for record in matrix.sets]
    sections: list[RenderableType] = [pairs(*matrix.facts()), section("verdicts", "bold", pairs(*verdicts))]
    if matrix.judged:
        sections.append(section("checks", "bold", _table(matrix.judged)))
    for packages, fault in faults(matrix.sets):
        sections.append(section(f"fault under {packages}: {fault.family} ({fault.id})", "bold red", fault_table(fault)))
    if unchecked := unchecked_rows(matrix.sets):
        sections.append(section("what was not checked", "bold yellow", pairs(*unchecked)))
    (console or stdout_console()).print(Group(*sections))


def print_bisection(bisection: Bisection, *, console: Console | None = None) -> None:
    """Write what a search found for people to `console`, by default stdout."""
    sections: list[RenderableType] = [pairs(*bisection.facts())]
    sections.append(section("releases that were judged", "bold", pairs(*bisection.release_rows())))
    sections += what_changed(bisection.comparison)
    sections.append(section(bisection.answer(), "bold"))
    (console or stdout_console()).print(Group(*sections))


def _table(sets: Sequence[SetRecord]) -> Table:
    table = Table()
    table.add_column("", overflow="fold")
    for record in sets:
        table.add_column(plain(record.packages), overflow="fold")
    for row in package_rows(sets):
        table.add_row(*map(plain, row))
    table.add_section()
    for check in check_rows(sets):
        table.add_row(plain(check.title), *(plain(word, _STYLES.get(word, "")) for word in check.outcomes))
    return table
