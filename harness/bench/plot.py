"""A benchmark as a picture: what went away of each cost, and what the plan said would."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CannotRun
from harness.report.files import require_writable
from harness.report.pictures import MISSING, PAGE_WIDTH, Picture, drawing, picture, save
from harness.report.terminal import visible
from pruning import PrunePlan

from .measurement import Measurement
from .record import Benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_MEASURED, _PLANNED, _SPREAD = "#56b4e9", "#d55e00", "#333333"  # of PALETTE
_WIDTH, _ROW, _TITLE, _EDGES = 9.0, 0.27, 0.4, 1.2  # inches
_LARGEST = 100.0  # times the base's cost
_LINE, _NARROW = 0.12, 28  # inches more a row, and characters a line, where labels are wrapped


def require_plottable(path: Path | None) -> None:
    """Raise CannotRun, before any work, if a plot cannot be drawn or not be written there."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise CannotRun(f"--plot {path} has no suffix that can be drawn: name a file that ends in .png or .svg")
    require_writable(path)
    if find_spec("matplotlib") is None:
        raise CannotRun(f"--plot needs {MISSING}")


def write_plot(benchmark: Benchmark, path: Path) -> None:
    """Draw a benchmark into a PNG or SVG file, by its suffix; raises CannotRun if that cannot be done."""
    require_plottable(path)
    with drawing():
        figure = benchmark_figure(benchmark, _WIDTH)
        figure.suptitle(
            visible(f"{Path(benchmark.checkpoint).name}: {PrunePlan.from_dict(benchmark.plan)}"), fontsize=10
        )
        save(figure, path)


def benchmark_picture(benchmark: Benchmark) -> Picture:
    """Return the picture for a page, and in words what is in it."""
    words = (
        "What of the base's cost is gone, beside what the plan predicts: a bar to the diamond is a gain that arrived.",
    )
    return picture("Measured, and predicted by the plan", words, lambda: benchmark_figure(benchmark, PAGE_WIDTH))


def benchmark_figure(benchmark: Benchmark, width: float) -> Figure:
    """Draw a benchmark, so many inches wide; to be called within `drawing()`."""
    from matplotlib.figure import Figure  # of an extra

    groups = [("on disk", plotted(benchmark.stored))]
    groups += [(mode.name, plotted(mode.measurements)) for mode in benchmark.modes]
    groups = [(title, costs) for title, costs in groups if costs]
    rows = [len(costs) for _, costs in groups]
    longest, row = (None, _ROW) if width >= _WIDTH else (_NARROW, _ROW + _LINE)
    figure = Figure(figsize=(width, row * sum(rows) + _TITLE * len(groups) + _EDGES), layout="constrained")
    every_axes = figure.subplots(max(len(rows), 1), 1, sharex=True, squeeze=False, height_ratios=rows or None)[:, 0]
    for axes, (title, costs) in zip(every_axes, groups, strict=bool(groups)):
        _draw(axes, title, costs, longest)
    if groups:
        every_axes[0].set_xlim(*_limits([each for _, costs in groups for each in costs]))
        every_axes[-1].set_xlabel("share of the base's cost that is gone, in %")
        figure.legend(*every_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def plotted(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return those costs that the plan predicts a share of, but for what grew so much that shares beside it vanish."""
    return [
        each
        for each in measurements
        if each.predictions and each.removed is not None and _fits(each.removed) and _fits(each.predictions[0].removed)
    ]


def _fits(share: float) -> bool:
    return abs(share) <= _LARGEST  # neither infinity nor NaN does


def _draw(axes: Axes, title: str, costs: list[Measurement], longest: int | None) -> None:
    positions = range(len(costs))
    shares = [100 * (each.removed or 0) for each in costs]
    ranges = [each.removed_range or (0.0, 0.0) for each in costs]
    axes.barh(positions, shares, color=_MEASURED, height=0.6, label="measured, median")
    axes.hlines(
        positions,
        [100 * max(low, -_LARGEST) for low, _ in ranges],
        [100 * min(high, _LARGEST) for _, high in ranges],
        color=_SPREAD,
        linewidth=1,
        label="single runs",
    )
    axes.plot(
        [100 * each.predictions[0].removed for each in costs],
        positions,
        "D",
        color=_PLANNED,
        markersize=5,
        linestyle="none",
        label="the plan",
    )
    axes.axvline(0, color="black", linewidth=0.8)
    labels = [visible(each.label) for each in costs]
    if longest is not None:
        labels = ["\n".join(textwrap.wrap(label, longest)) for label in labels]
    axes.set_yticks(positions, labels)
    axes.set_ylim(len(costs) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(visible(title), fontsize=9, fontweight="bold", loc="left")


def _limits(costs: list[Measurement]) -> tuple[float, float]:
    """Return the ends of the axis, in %: medians and predictions are on it; a run that fell out runs over the edge."""
    shares = [0.0, *(each.removed or 0 for each in costs), *(each.predictions[0].removed for each in costs)]
    margin = 0.15 * (max(shares) - min(shares) or 0.1)
    return 100 * (min(shares) - (margin if min(shares) < 0 else margin / 3)), 100 * (max(shares) + margin)
