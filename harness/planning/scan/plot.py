"""A scan as pictures: for each metric a heat map, layers by {self_attn, mlp, layer}; distances over several layers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from harness.errors import CannotRun
from harness.report.pictures import PAGE_WIDTH, Picture, drawing, picture, save
from harness.report.terminal import visible

from .estimate import METRICS
from .record import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".svg")
_ROWS: Final = ("self_attn", "mlp", "layer")
# Even in lightness, so it is read alike by the colour-blind and in print (Nunez, Anderton and Renslow 2018).
_COLOURS: Final = "cividis"
_ABSENT: Final = "#dddddd"
# One removal can cost a hundred times another; the colours are for the many, and the arrow for the rest.
_COLOURED: Final = 90  # percent of the values
_SQUARE: Final = 0.28  # inches


def can_plot() -> bool:
    """Whether matplotlib, an extra, is there."""
    return find_spec("matplotlib") is not None


def write_pictures(scan: Scan, directory: Path) -> list[Path]:
    """Draw every metric of a scan into `<metric>.png` and `<metric>.svg`, and return the paths.

    Raises CannotRun if matplotlib is not there, or a file cannot be written.
    """
    if not can_plot():
        raise CannotRun("pictures need matplotlib, which is not installed: pip install 'prunecheck[plot]'")
    return [path for metric in scan.metrics for path in _write(scan, metric, directory)]


def _write(scan: Scan, metric: str, directory: Path) -> list[Path]:
    paths = [directory / f"{metric}{suffix}" for suffix in SUFFIXES]
    with drawing():
        figure = metric_figure(scan, metric)
        title = visible(f"{Path(scan.checkpoint).name}: {METRICS[metric].label}")
        figure.axes[0].set_title(title, fontsize=10, loc="left")
        for path in paths:
            save(figure, path)
    return paths


def metric_pictures(scan: Scan) -> list[Picture]:
    """Return the pictures for a page, one for each metric."""

    def of(metric: str) -> Picture:
        label, unit = METRICS[metric].label, METRICS[metric].unit
        words = (f"{label}{f' ({unit})' if unit else ''}: what is least is darkest.", *_extremes(scan, metric))
        return picture(f"{metric}: {label}", words, lambda: metric_figure(scan, metric, PAGE_WIDTH))

    return [of(metric) for metric in scan.metrics]


def _extremes(scan: Scan, metric: str) -> list[str]:
    """Return what has least and most of a metric, in words."""
    ranked = [each.name for each in scan.ranked(metric) if each.estimate(metric).mean is not None]
    return [f"Least: {', '.join(ranked[:3])}. Most: {', '.join(ranked[:-4:-1])}."] if ranked else []


def metric_figure(scan: Scan, metric: str, width: float | None = None) -> Figure:
    """Draw the heat map of a metric, so many inches wide, or with square cells; to be called within `drawing()`."""
    from matplotlib.figure import Figure  # of an extra

    values = _distances(scan) if metric == "angular" else _contributions(scan, metric)
    rows, columns = values.shape
    height = _SQUARE * rows + 1.3
    if width is None:
        figure = Figure(figsize=(max(6.0, _SQUARE * columns + 2.2), height), layout="constrained")
    else:
        figure = Figure(figsize=(width, min(height, width)), layout="constrained")
    axes = figure.subplots()
    _draw(axes, values, metric, "equal" if width is None else "auto")
    if metric == "angular":
        axes.set_xlabel("from layer")
        axes.set_ylabel("over so many layers")
        axes.set_yticks(_ticks(rows), [str(index + 1) for index in _ticks(rows)])
    else:
        axes.set_yticks(range(len(_ROWS)), _ROWS)
        axes.set_xlabel("layer; ring: noise" if _mark_noise(axes, scan, metric) else "layer")
    axes.set_xticks(_ticks(columns))
    return figure


def _draw(axes: Axes, values: np.ndarray[Any, Any], metric: str, aspect: Literal["equal", "auto"]) -> None:
    import matplotlib as mpl

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(np.percentile(finite, _COLOURED))) if finite.size else (0.0, 1.0)
    image = axes.imshow(
        values, cmap=mpl.colormaps[_COLOURS].with_extremes(bad=_ABSENT), vmin=low, vmax=max(high, low + 1e-9),
        aspect=aspect, interpolation="nearest", origin="lower" if metric == "angular" else "upper",
    )  # fmt: skip
    beyond = "max" if finite.size and float(finite.max()) > high else "neither"
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, extend=beyond, label=METRICS[metric].unit, location="right", shrink=0.9)


def _mark_noise(axes: Axes, scan: Scan, metric: str) -> bool:
    """Put a ring where the interval holds zero; return whether there is any."""
    noise = [each for each in scan.contributions if metric in each.values and each.estimate(metric).is_noise]
    if noise:
        columns, rows = [each.layer for each in noise], [_ROWS.index(each.sublayer) for each in noise]
        axes.scatter(columns, rows, s=14, facecolors="none", edgecolors="white", linewidths=0.9)
    return bool(noise)


def _contributions(scan: Scan, metric: str) -> np.ndarray[Any, Any]:
    values = np.full((len(_ROWS), scan.layers), np.nan)
    for each in scan.contributions:
        if metric in each.values and (mean := each.estimate(metric).mean) is not None:
            values[_ROWS.index(each.sublayer), each.layer] = mean
    return values


def _distances(scan: Scan) -> np.ndarray[Any, Any]:
    values = np.full((scan.layers, scan.layers), np.nan)
    for each in scan.distances:
        if (mean := each.estimate().mean) is not None:
            values[each.layers - 1, each.first] = mean
    return values


def _ticks(count: int) -> list[int]:
    step = max(1, -(-count // 30))
    return list(range(0, count, step * (5 if count > 12 else 1)))
