"""A benchmark as a picture: what went away of each cost, and what the plan said would."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CannotRun
from harness.reporting.report import require_writable
from harness.reporting.terminal import visible
from pruning import PrunePlan

from .record import Benchmark, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
# Colours that stay apart for the colour-blind, and in print (Okabe and Ito 2008, Color Universal Design).
_MEASURED, _PLANNED, _SPREAD = "#56b4e9", "#d55e00", "#333333"
_WIDTH, _ROW, _TITLE, _EDGES = 9.0, 0.27, 0.4, 1.2  # inches


def require_plottable(path: Path | None) -> None:
    """Raise CannotRun, before any work, if a plot cannot be drawn or not be written there."""
    if path is None:
        return
    if path.suffix.lower() not in SUFFIXES:
        raise CannotRun(f"--plot {path} has no suffix that can be drawn: name a file that ends in .png or .svg")
    require_writable(path)
    if find_spec("matplotlib") is None:
        raise CannotRun("--plot needs matplotlib, which is not installed: pip install 'prunecheck[plot]'")


def write_plot(benchmark: Benchmark, path: Path) -> None:
    """Draw a benchmark into a PNG or SVG file, by its suffix; raises CannotRun if that cannot be done."""
    require_plottable(path)
    import matplotlib as mpl  # an extra
    from matplotlib.figure import Figure

    groups = [("on disk", plotted(benchmark.stored))]
    groups += [(mode.name, plotted(mode.measurements)) for mode in benchmark.modes]
    groups = [(title, costs) for title, costs in groups if costs]
    rows = [len(costs) for _, costs in groups]
    # Names are anyone's: none of them is a formula, and characters that the font lacks become boxes.
    style = mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9, "text.parse_math": False})
    with style, warnings.catch_warnings(action="ignore"):
        figure = Figure(figsize=(_WIDTH, _ROW * sum(rows) + _TITLE * len(groups) + _EDGES), layout="constrained")
        every_axes = figure.subplots(max(len(rows), 1), 1, sharex=True, squeeze=False, height_ratios=rows or None)[:, 0]
        for axes, (title, costs) in zip(every_axes, groups, strict=bool(groups)):
            _draw(axes, title, costs)
        if groups:
            every_axes[0].set_xlim(*_limits([each for _, costs in groups for each in costs]))
            every_axes[-1].set_xlabel("share of the base's cost that is gone, in %")
            figure.legend(
                *every_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
            )
        title = visible(f"{Path(benchmark.checkpoint).name}: {PrunePlan.from_dict(benchmark.plan)}")
        figure.suptitle(title, fontsize=10)
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else {})
        except OSError as error:
            raise CannotRun(f"{path} cannot be written: {error.strerror}") from None


def plotted(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return those costs that the plan predicts a share of."""
    return [each for each in measurements if each.predictions and each.removed is not None]


def _draw(axes: Axes, title: str, costs: list[Measurement]) -> None:
    positions = range(len(costs))
    shares = [100 * (each.removed or 0) for each in costs]
    ranges = [each.removed_range or (0.0, 0.0) for each in costs]
    axes.barh(positions, shares, color=_MEASURED, height=0.6, label="measured, median")
    axes.hlines(
        positions,
        [100 * low for low, _ in ranges],
        [100 * high for _, high in ranges],
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
    axes.set_yticks(positions, [visible(each.label) for each in costs])
    axes.set_ylim(len(costs) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(visible(title), fontsize=9, fontweight="bold", loc="left")


def _limits(costs: list[Measurement]) -> tuple[float, float]:
    """Return the ends of the axis, in %: medians and predictions are on it; a run that fell out runs over the edge."""
    shares = [0.0, *(each.removed or 0 for each in costs), *(each.predictions[0].removed for each in costs)]
    margin = 0.15 * (max(shares) - min(shares) or 0.1)
    return 100 * (min(shares) - (margin if min(shares) < 0 else margin / 3)), 100 * (max(shares) + margin)
