"""A scan for the terminal: what is least missed comes first, each with its interval, so that noise is seen as such."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table

from harness.report.notebook import Summary, plan_text
from harness.report.terminal import pairs, plain, section, stdout_console

from .record import METRICS, Contribution, Estimate, Scan

_FIRST, _LAST = 20, 5
ACROSS = "what enters and what leaves, over several layers"
NEAREST = ("layers", "the nearest run of so many", METRICS["angular"].label)
_SHOWN = 8  # at a prompt


def print_scan(scan: Scan, *, console: Console | None = None) -> None:
    """Write a scan for people to `console`, by default stdout."""
    (console or stdout_console()).print(Group(_summary(scan), *_ranking(scan), *_nearest(scan)))


def estimate_text(estimate: Estimate) -> str:
    """Return a mean with the ends of its interval, marked where that holds zero."""
    if estimate.mean is None:
        return "not finite"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3g}"
    noise = "~ " if estimate.is_noise else ""
    return f"{noise}{estimate.mean:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"


def scan_summary(scan: Scan) -> Summary:
    """Return what a notebook shows of a scan: what is least missed; in HTML every sub-layer and layer, least first."""
    metrics = ranked_metrics(scan)
    ranked = scan.ranked(metrics[0]) if metrics else []
    lines = facts(scan)
    lines += [(each.name, f"{metrics[0]} {estimate_text(each.estimate(metrics[0]))}") for each in ranked[:_SHOWN]]
    rows = [_row(each, metrics) for each in ranked]
    title = f"by {metrics[0]}, the least first" if metrics else "distances alone"
    return Summary(title, lines, ("", *metrics), rows)


def _summary(scan: Scan) -> Table:
    return pairs(*facts(scan))


def facts(scan: Scan) -> list[tuple[str, str]]:
    """Return what was scanned, and on what: names, and what they are."""
    texts = dict.fromkeys(window.text for window in scan.windows)
    rows = [
        ("checkpoint", scan.checkpoint),
        ("already pruned", plan_text(scan.plan)),
        ("loaded as", scan.mode),
        ("text", f"{len(scan.windows)} windows of {scan.window_tokens} tokens: {', '.join(texts)}"),
    ]
    if scan.nll.mean is not None:
        rows.append(("nothing removed", f"negative log likelihood {estimate_text(scan.nll)} nats per token"))
    return rows


def _ranking(scan: Scan) -> list[Group]:
    metrics = ranked_metrics(scan)
    if not metrics:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in metrics:
        table.add_column(column(name))
    ranked = scan.ranked(metrics[0])
    cut = len(ranked) > _FIRST + _LAST + 1
    for each in ranked[:_FIRST] if cut else ranked:
        table.add_row(*_row(each, metrics))
    if cut:
        table.add_row(plain(f"... {len(ranked) - _FIRST - _LAST} more", "italic"))
        for each in ranked[-_LAST:]:
            table.add_row(*_row(each, metrics))
    legends = [plain(line, "dim") for line in legend(scan)]
    return [section(f"by {metrics[0]}, the least first", "bold", table, *legends)]


def ranked_metrics(scan: Scan) -> list[str]:
    """Return what was measured of each sub-layer and layer, the one that they are ranked by first."""
    return [name for name in scan.metrics if name != "angular"]


def column(metric: str) -> str:
    """Return what stands above the values of a metric: `nll, nats per token`."""
    return f"{metric}, {METRICS[metric].unit}".rstrip(", ")


def legend(scan: Scan) -> list[str]:
    """Return what the metrics are, and how their intervals are read."""
    note = "Means over the windows, with 95 % intervals; ~ marks those that hold zero: on this much text, noise."
    if len(scan.windows) == 1:
        note = "One window tells no noise from what is: take more --tokens."
    return [*(f"{name}: {METRICS[name].label}" for name in ranked_metrics(scan)), note]


def _row(contribution: Contribution, metrics: Sequence[str]) -> list[str]:
    return [
        contribution.name,
        *(estimate_text(contribution.estimate(name)) if name in contribution.values else "" for name in metrics),
    ]


def _nearest(scan: Scan) -> list[Group]:
    if not scan.distances:
        return []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in NEAREST:
        table.add_column(heading)
    for row in nearest_rows(scan):
        table.add_row(*row)
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
