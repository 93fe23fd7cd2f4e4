"""A scan for the terminal: what is least missed comes first, each with its interval, so that noise is seen as such."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.table import Table

from harness.report.terminal import fitting, pairs, plain, section, stdout_console

from .estimate import METRICS, Estimate, estimate_text, perplexity_text
from .record import Contribution, Scan, row

_FIRST, _LAST = 20, 5
ACROSS = "what enters and what leaves, over several layers"
NEAREST = ("layers", "the nearest run of so many", METRICS["angular"].label)


def print_scan(scan: Scan, *, console: Console | None = None) -> None:
    """Write a scan for people to `console`, by default stdout."""
    out = console or stdout_console()
    out.print(Group(_summary(scan), *_ranking(scan, out), *_nearest(scan)))


def _summary(scan: Scan) -> Table:
    return pairs(*scan.facts())


def _ranking(scan: Scan, console: Console) -> list[Group]:
    metrics = scan.ranked_metrics
    if not metrics:
        return []
    table = fitting(console, _ranked(scan, with_intervals=True), _ranked(scan, with_intervals=False))
    legends = [plain(line, "dim") for line in legend(scan)]
    return [section(f"by {metrics[0]}, the least first", "bold", table, *legends)]


def _ranked(scan: Scan, *, with_intervals: bool) -> Table:
    """Return a table of what can be removed, the least missed first; without intervals it fits 80 columns."""
    metrics = scan.ranked_metrics
    ranked = scan.ranked(metrics[0])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0) if with_intervals else (0, 1, 0, 0))
    leading = [name for name, _ in _what_matters(ranked[0])] if ranked else []
    for name in ("", *leading, *(map(column, metrics) if with_intervals else metrics)):
        table.add_column(name)
    cut = len(ranked) > _FIRST + _LAST + 1
    for each in ranked[:_FIRST] if cut else ranked:
        table.add_row(*_cells(each, metrics, with_intervals=with_intervals))
    if cut:
        table.add_row(plain(f"... {len(ranked) - _FIRST - _LAST} more", "italic"))
        for each in ranked[-_LAST:]:
            table.add_row(*_cells(each, metrics, with_intervals=with_intervals))
    return table


def _cells(contribution: Contribution, metrics: Sequence[str], *, with_intervals: bool) -> list[str]:
    name, *measured = row(contribution, metrics)
    if not with_intervals:
        measured = [text.partition(" (")[0] for text in measured]
    return [name, *(value for _, value in _what_matters(contribution)), *measured]


def _what_matters(contribution: Contribution) -> Iterator[tuple[str, str]]:
    """Yield what a removal is for and what it costs, by heading: bytes left, and the factor of the perplexity."""
    if contribution.kept_share is not None:
        yield "bytes left", f"{contribution.kept_share:.1%}"
    if "nll" in contribution.values:
        mean = contribution.estimate("nll").mean
        yield "perplexity", perplexity_text(Estimate(mean, None, None))


def column(metric: str) -> str:
    """Return what stands above the values of a metric: `nll, nats per token`."""
    return f"{metric}, {METRICS[metric].unit}".rstrip(", ")


def legend(scan: Scan) -> list[str]:
    """Return what the metrics are, and how their intervals are read."""
    note = "Means over the windows, with 95 % intervals; ~ marks those that hold zero: on this much text, noise."
    if len(scan.windows) == 1:
        note = "One window tells no noise from what is: take more --tokens."
    labels = [f"{name}: {METRICS[name].label}, {METRICS[name].unit}".rstrip(", ") for name in scan.ranked_metrics]
    return [*labels, note]


def _nearest(scan: Scan) -> list[Group]:
    if not scan.distances:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in NEAREST:
        table.add_column(heading)
    for cells in nearest_rows(scan):
        table.add_row(*cells)
    return [section(ACROSS, "bold", table)]


def nearest_rows(scan: Scan) -> list[tuple[str, str, str]]:
    """Return for each number of layers the run of so many that changes least, below the headings `NEAREST`."""
    rows = []
    for layers in sorted({distance.layers for distance in scan.distances}):
        measured = [
            (mean, each)
            for each in scan.distances
            if each.layers == layers and (mean := each.estimate().mean) is not None
        ]
        if measured:
            _, nearest = min(measured, key=lambda pair: pair[0])
            last = nearest.first + layers - 1
            run = str(last) if layers == 1 else f"{nearest.first}-{last}"
            rows.append((str(layers), run, estimate_text(nearest.estimate())))
    return rows
