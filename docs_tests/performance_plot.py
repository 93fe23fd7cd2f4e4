"""Draw docs/performance.svg: our own figures as ratios to their baselines, with their spread and their goals.

`python docs_tests/performance_plot.py` writes it from fixtures/performance.json, which the benchmarks write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RECORDS, PLOT = ROOT / "fixtures" / "performance.json", ROOT / "docs" / "performance.svg"
SECTIONS = {"writing": "", "loading": "", "inference": "", "gpu": "on a GPU, "}  # and how their labels begin
# Colours and shapes that stay apart for the colour-blind, and in print (Okabe and Ito 2008, Color Universal Design).
STYLES = {True: ("#0072b2", "o", "goal reached"), False: ("#d55e00", "^", "goal missed")}
GOAL_COLOUR = "#666666"


class Row(NamedTuple):
    """A ratio beside its goal: the most that it should be."""

    label: str
    ratio: float
    lowest: float
    highest: float
    goal: float


def rows(records: dict[str, Any]) -> list[Row]:
    """Return the ratios that have a goal, in the order of the page."""
    return [
        Row(
            f"{SECTIONS[section]}{figure['what']} / {figure['baseline']}".replace("`", "").removeprefix("prunecheck "),
            figure["ratio"],
            figure["lowest"],
            figure["highest"],
            float(figure["goal"].removesuffix(" at most")),
        )
        for section in SECTIONS
        for figure in records[section]["ratios"]
        if figure["goal"]
    ]


def write_plot(path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same records."""
    shown = rows(json.loads(RECORDS.read_text(encoding="utf-8")))
    with mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9}):
        figure = Figure(figsize=(11, 0.34 * len(shown) + 1.2))
        figure.subplots_adjust(left=0.53, right=0.98, top=0.93, bottom=0.1)
        axes = figure.subplots()
        for reached, (colour, marker, name) in STYLES.items():
            of_kind = [(y, row) for y, row in enumerate(shown) if (row.ratio <= row.goal) is reached]
            axes.errorbar(
                [row.ratio for _, row in of_kind],
                [y for y, _ in of_kind],
                xerr=[[row.ratio - row.lowest for _, row in of_kind], [row.highest - row.ratio for _, row in of_kind]],
                fmt=marker, color=colour, markersize=6, linewidth=1, capsize=2, label=name,
            )  # fmt: skip
        axes.plot(
            [row.goal for row in shown], range(len(shown)), "|", color=GOAL_COLOUR, markersize=14, markeredgewidth=2,
            label="goal: at most this",
        )  # fmt: skip
        axes.axvline(1, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        ticks = [0.2, 0.5, 1, 2, 4]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.minorticks_off()
        axes.set_yticks(range(len(shown)), [row.label for row in shown])
        axes.invert_yaxis()
        axes.set_xlabel("time over the baseline's: median of the rounds, lowest to highest")
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_plot(PLOT)
