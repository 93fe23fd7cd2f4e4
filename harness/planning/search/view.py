"""A search for the terminal: what went step by step, what each step cost, and the command that comes next."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table

from harness.planning.scan.estimate import Estimate, perplexity_text
from harness.report.terminal import pairs, plain, section, stdout_console

from .record import COLUMNS, Search

NOTE = "Rise and perplexity are over the whole model, the rise with its 95 % interval; ~ marks those that hold zero."


def print_search(search: Search, *, console: Console | None = None) -> None:
    """Write a search for people to `console`, by default stdout."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    *before, rise = COLUMNS
    for heading in (*before, "perplexity", rise):
        table.add_column(heading)
    for step, row in zip(search.steps, search.step_rows(), strict=True):
        factor = perplexity_text(Estimate(search.rise(step).mean, None, None))
        table.add_row(*map(plain, (*row[:-1], factor, row[-1])))
    steps = section("step by step", "bold", table, plain(NOTE, "dim"))
    (console or stdout_console()).print(Group(pairs(*search.facts()), steps))
