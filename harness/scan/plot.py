"""A scan as pictures: for each metric a heat map, layers by {self_attn, mlp, layer}; distances over several layers."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.errors import CannotRun
from harness.reporting.terminal import visible

from .record import METRICS, Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    import matplotlib as mpl  # an extra
    from matplotlib.figure import Figure

    values = _distances(scan) if metric == "angular" else _contributions(scan, metric)
    height, width = values.shape
    paths = [directory / f"{metric}{suffix}" for suffix in SUFFIXES]
    # Names are anyone's: none of them is a formula, and characters that the font lacks become boxes.
    style = mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9, "text.parse_math": False})
    with style, warnings.catch_warnings(action="ignore"):
        figure = Figure(figsize=(max(6.0, _SQUARE * width + 2.2), _SQUARE * height + 1.3), layout="constrained")
        axes = figure.subplots()
        _draw(axes, values, metric)
        if metric == "angular":
            axes.set_ylabel("over so many layers")
            axes.set_yticks(_ticks(height), [str(index + 1) for index in _ticks(height)])
        else:
            axes.set_yticks(range(len(_ROWS)), _ROWS)
            _mark_noise(axes, scan, metric)
        axes.set_xlabel("from layer" if metric == "angular" else "layer")
        axes.set_xticks(_ticks(width))
        axes.set_title(visible(f"{Path(scan.checkpoint).name}: {METRICS[metric].label}"), fontsize=10, loc="left")
        for path in paths:
            try:
                figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})
            except OSError as error:
                raise CannotRun(f"{path} cannot be written: {error.strerror}") from None
    return paths


def _draw(axes: Axes, values: np.ndarray[Any, Any], metric: str) -> None:
    import matplotlib as mpl

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(np.percentile(finite, _COLOURED))) if finite.size else (0.0, 1.0)
    image = axes.imshow(
        values, cmap=mpl.colormaps[_COLOURS].with_extremes(bad=_ABSENT), vmin=low, vmax=max(high, low + 1e-9),
        aspect="equal", interpolation="nearest", origin="lower" if metric == "angular" else "upper",
    )  # fmt: skip
    beyond = "max" if finite.size and float(finite.max()) > high else "neither"
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, extend=beyond, label=METRICS[metric].unit, location="right", shrink=0.9)


def _mark_noise(axes: Axes, scan: Scan, metric: str) -> None:
    """Put a ring where the interval holds zero."""
    noise = [each for each in scan.contributions if metric in each.values and each.estimate(metric).is_noise]
    if noise:
        columns, rows = [each.layer for each in noise], [_ROWS.index(each.sublayer) for each in noise]
        axes.scatter(columns, rows, s=14, facecolors="none", edgecolors="white", linewidths=0.9)
        axes.text(1, -0.02, "ring: noise", transform=axes.transAxes, ha="right", va="top", fontsize=8)


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
