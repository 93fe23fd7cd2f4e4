"""The trade-off as a picture: what each step costs in quality, against the bytes that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.planning.scan.estimate import estimate_text
from harness.report.pictures import PAGE_WIDTH, PALETTE, Picture, drawing, picture, save
from harness.report.terminal import visible

from .record import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What the bytes that go cost in quality"


def write_pictures(search: Search, directory: Path) -> None:
    """Draw `trade-off.png` and `trade-off.svg`; needs matplotlib. Raises CannotRun if a file cannot be written."""
    with drawing():
        figure = trade_off_figure(search)
        figure.axes[0].set_title(visible(f"{Path(search.checkpoint).name}: {TITLE.lower()}"), fontsize=10, loc="left")
        for suffix in (".png", ".svg"):
            save(figure, directory / f"trade-off{suffix}")


def trade_off_picture(search: Search) -> Picture:
    """Return the picture for a page."""
    last = search.steps[-1]
    words = (
        "Each point is a step, from the whole model at the left; the band is the 95 % interval.",
        f"At the end {search.kept_share(last):.1%} of the bytes are left, at {estimate_text(search.rise(last))} nats.",
    )
    return picture(TITLE, words, lambda: trade_off_figure(search))


def trade_off_figure(search: Search) -> Figure:
    """Draw the curve; to be called within `drawing()`."""
    from matplotlib.figure import Figure  # of an extra

    figure = Figure(figsize=(PAGE_WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    rises = [search.rise(step) for step in search.steps]
    shares = [100.0, *(100 * search.kept_share(step) for step in search.steps)]
    means = [0.0, *(float("nan") if rise.mean is None else rise.mean for rise in rises)]
    lows = [0.0, *(mean if rise.low is None else rise.low for rise, mean in zip(rises, means[1:], strict=True))]
    highs = [0.0, *(mean if rise.high is None else rise.high for rise, mean in zip(rises, means[1:], strict=True))]
    axes.fill_between(shares, lows, highs, color=PALETTE[0], alpha=0.2, linewidth=0)
    axes.plot(shares, means, color=PALETTE[0], marker="o", markersize=4)
    axes.invert_xaxis()
    axes.set_xlabel("bytes of tensors left, %")
    axes.set_ylabel("rise of the negative log likelihood,\nnats per token")
    axes.grid(alpha=0.3)
    return figure
