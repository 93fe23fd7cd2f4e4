"""Where a candidate leaves its reference: the residual stream behind each sub-layer, from the numbers of a report."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pruning import PrunePlan, SubLayer
from pruning.plan import KINDS

from .groups import group_and_property
from .pictures import PAGE_WIDTH, PALETTE, Picture, picture
from .report import Report
from .terminal import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME: Final = re.compile(r"layers\.(\d{1,6})\.(self_attn|mlp)", re.ASCII)
_PANEL: Final = 2.2  # inches
_MARKERS: Final = "osD^vPX"


def is_of_a_layer(number: str) -> bool:
    """Whether a number of a check is about the residual stream behind a sub-layer: its name is `layers.3.mlp`."""
    return _sublayer(number) is not None


def _sublayer(number: str) -> SubLayer | None:
    match = _NAME.fullmatch(number)
    return SubLayer(int(match[1]), match[2]) if match else None


@dataclass(frozen=True)
class Divergence:
    """How far one way of loading is from its reference behind each sub-layer, relative to its largest element there.

    `points` are sub-layers, each with that share, as they run; `allowed` is what logits may differ by, relative to the
    largest.
    """

    mode: str
    allowed: float
    points: tuple[tuple[SubLayer, float], ...]

    @property
    def first_beyond(self) -> tuple[SubLayer, float] | None:
        """The first place where it differs by more than logits may; None if it does nowhere."""
        return next((point for point in self.points if not point[1] <= self.allowed), None)  # NaN is beyond

    @property
    def words(self) -> str:
        """What is seen of it, without its mode."""
        may = f"logits may differ by {self.allowed:.2g}"
        if (beyond := self.first_beyond) is not None:
            sublayer, share = beyond
            return f"leaves the reference behind {sublayer}, by {share:.2g}; {may}."
        largest = max(share for *_, share in self.points)
        if largest == 0:
            return "equal to the reference behind every sub-layer, bit for bit."
        return f"at most {largest:.2g} off the reference behind any sub-layer; {may}."


def divergences(report: Report) -> list[Divergence]:
    """Return the divergence of each way of loading whose logits were compared layer by layer."""
    found = []
    for check in report.checks:
        numbers = ((_sublayer(name), share) for name, share in check.numbers.items())
        points = sorted((sublayer, float(share)) for sublayer, share in numbers if sublayer is not None)
        allowed = check.numbers.get("allowed")
        if points and allowed is not None:
            found.append(Divergence(group_and_property(check.name)[0], float(allowed), tuple(points)))
    return found


def divergence_picture(report: Report) -> Picture | None:
    """Return the picture of all of them; None where none was measured."""
    found = divergences(report)
    if not found:
        return None
    modes: dict[str, list[str]] = {}
    for each in found:
        modes.setdefault(each.words, []).append(each.mode)
    words = (
        "The residual stream of the candidate against the reference's, behind each sub-layer: the largest difference, "
        "relative to the largest element. Rounding stays below the line; a fault jumps above it where it happens.",
        *(f"{', '.join(names)}: {text}" for text, names in modes.items()),
    )
    plan = PrunePlan.from_dict(report.plan)
    return picture("Where the candidate leaves the reference", words, lambda: divergence_figure(found, plan))


def divergence_figure(found: list[Divergence], plan: PrunePlan) -> Figure:
    """Draw them, those that may differ by the same in one panel; to be called within `drawing()`."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels: dict[float, list[Divergence]] = {}
    for each in found:
        panels.setdefault(each.allowed, []).append(each)
    figure = Figure(figsize=(PAGE_WIDTH, _PANEL * len(panels) + 0.4), layout="constrained")
    every_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (allowed, shown) in zip(every_axes, panels.items(), strict=True):
        _draw(axes, allowed, shown)
        for number, place in enumerate(map(_place, plan)):
            label = {} if number else {"label": "pruned"}
            axes.axvspan(place - 0.25, place + 0.25, color="#dddddd", linewidth=0, zorder=0, **label)
        axes.legend(fontsize=8, ncols=2, loc="best", framealpha=0.9, borderpad=0.3, columnspacing=1)
    every_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    every_axes[-1].set_xlabel("decoder layer: behind self_attn at its number,\nbehind mlp half-way to the next")
    return figure


def _draw(axes: Axes, allowed: float, shown: list[Divergence]) -> None:
    shares = [share for each in shown for *_, share in each.points]
    positive = [share for share in (*shares, allowed) if 0 < share < math.inf]
    lowest = 10.0 ** (math.floor(math.log10(min(positive, default=1e-6))) - 1)
    highest = 10.0 ** (math.ceil(math.log10(max(positive, default=1.0))) + 1)
    for number, each in enumerate(shown):
        axes.plot(
            [_place(sublayer) for sublayer, _ in each.points],
            # What is equal has no place on a logarithmic axis, and what is no number has none anywhere.
            [max(share, lowest) if share < highest else highest for *_, share in each.points],
            color=PALETTE[number % len(PALETTE)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=max(2.5, 5 - number),
            linewidth=1,
            label=visible(each.mode),
        )
    axes.axhline(allowed, color="black", linestyle="--", linewidth=0.9)
    axes.annotate(
        f"logits may differ by {allowed:.2g}", (1, allowed), xycoords=("axes fraction", "data"),
        xytext=(-3, 2), textcoords="offset points", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    axes.set_yscale("log")
    decades = range(round(math.log10(lowest)), round(math.log10(highest)))
    ticks = {10.0**decade: f"{10.0**decade:.0e}" for decade in decades[:: max(1, len(decades) // 5)]}
    ticks[lowest] = "equal"
    if not all(share < highest for share in shares):
        ticks[highest] = "no number"
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_ylim(lowest / 2, highest * 2)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)


def _place(sublayer: SubLayer) -> float:
    """Return where a sub-layer is drawn, in layers."""
    return sublayer.position / len(KINDS)
