"""Each check of a report for the terminal: what it came to, how long it took, what it measured."""

from __future__ import annotations

from rich.console import Console

from .report import Report
from .terminal import pairs, plain, stdout_console


def print_checks(report: Report, *, console: Console | None = None) -> None:
    """Write a row for each check to `console`, by default stdout."""
    rows = []
    for check in report.checks:
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in check.numbers.items())
        rows.append((check.name, f"{check.outcome}, {check.seconds:.2f} s{f', {numbers}' if numbers else ''}"))
    out = console or stdout_console()
    out.print(pairs(*rows))
    out.print(plain(""))
