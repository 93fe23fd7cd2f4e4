"""A search for the terminal: what went step by step, what each step cost, and the command that comes next."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table

from harness.planning.scan.record import estimate
from harness.planning.scan.view import estimate_text
from harness.report.notebook import Summary
from harness.report.terminal import pairs, plain, section, stdout_console
from pruning import PrunePlan

from .record import Search

COLUMNS = ("step", "removed", "bytes left", "rise, nats per token")
NOTE = "The rise is over the model with nothing removed, with its 95 % interval; ~ marks those that hold zero."


def print_search(search: Search, *, console: Console | None = None) -> None:
    """Write a search for people to `console`, by default stdout."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in COLUMNS:
        table.add_column(heading)
    for row in step_rows(search):
        table.add_row(*map(plain, row))
    steps = section("step by step", "bold", table, plain(NOTE, "dim"))
    (console or stdout_console()).print(Group(pairs(*facts(search)), steps))


def facts(search: Search) -> list[tuple[str, str]]:
    """Return what was searched, on what, and what was chosen: names, and what they are."""
    texts = dict.fromkeys(window.text for window in search.windows)
    last = search.steps[-1]
    full = estimate(tuple(window.nll for window in search.windows))
    budget = " ".join(f"{option} {value:g}" for option, value in search.budget.items())
    return [
        ("checkpoint", search.checkpoint),
        ("already pruned", str(PrunePlan.from_dict(search.pruned))),
        ("asked for", f"{budget}, {search.method}{f' of {search.width}' if search.method == 'beam' else ''}"),
        ("loaded as", search.mode),
        ("text", f"{len(search.windows)} windows of {search.window_tokens} tokens: {', '.join(texts)}"),
        ("nothing removed", f"negative log likelihood {estimate_text(full)} nats per token"),
        ("plan", f"{search.plan} ({len(search.plan.self_attn) + len(search.plan.mlp)} sub-layers)"),
        ("bytes left", f"{last.kept_bytes:,} of {search.bytes:,} ({search.kept_share(last):.1%})"),
        ("rise", f"{estimate_text(search.rise(last))} nats per token"),
    ]


def step_rows(search: Search) -> list[tuple[str, ...]]:
    """Return a row a step, below the headings `COLUMNS`."""
    return [
        (
            str(number),
            str(PrunePlan.from_dict(step.removed)),
            f"{search.kept_share(step):.1%}",
            estimate_text(search.rise(step)),
        )
        for number, step in enumerate(search.steps, 1)
    ]


def search_summary(search: Search) -> Summary:
    """Return what a notebook shows of a search: what was chosen and what it costs; in HTML every step."""
    return Summary(f"{search.plan}", facts(search), COLUMNS, step_rows(search))
