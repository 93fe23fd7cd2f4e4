"""Draw docs/text-judge.svg: how far every control of the judge of text is from the limit that decides.

`python docs_tests/text_judge_plot.py` writes it from fixtures/text_controls.json, which the tests of the tox
environment `sweep` write.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RECORDS, PLOT = ROOT / "fixtures" / "text_controls.json", ROOT / "docs" / "text-judge.svg"
PRECISIONS = ("float32", "bfloat16", "8bit", "4bit")
# Colours and shapes that stay apart for the colour-blind, and in print (Okabe and Ito 2008, Color Universal Design).
STYLES = {
    "sound": ("#0072b2", "o"), "garbled": ("#d55e00", "^"), "plan ruins the model": ("#666666", "s"),
}  # fmt: skip
OF_THE_MODEL = ("drift", "cached_drift", "own_drift", "excess", "precision_cost")
LEFT, RIGHT = 1e-7, 1e9  # what is beyond, 0 and NaN among it, is drawn at the edge


def ratio(record: dict[str, Any], names: tuple[str, ...]) -> float:
    """Return the largest share of its limit that one of these numbers has; infinite where none is finite."""
    numbers, limits = record["numbers"], record["limits"]
    shares = [numbers[name] / limits[name] for name in names if name in numbers]
    return max(shares, default=math.inf)


def draw(axes: Axes, records: list[dict[str, Any]], names: tuple[str, ...], words: tuple[str, ...], title: str) -> None:
    """Draw one point a control: its share of the limit, in a row of its precision and of what it should be."""
    rows = [(precision, word) for precision in PRECISIONS for word in words]
    for row, (precision, word) in enumerate(rows):
        colour, marker = STYLES[word]
        shares = [
            min(max(ratio(record, names), LEFT), RIGHT)
            for record in records
            if (record["precision"], record["wanted"]) == (precision, word)
        ]
        axes.plot(shares, [row] * len(shares), marker, color=colour, alpha=0.7, markersize=5, clip_on=False)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(LEFT, RIGHT)
    axes.set_yticks(range(len(rows)), [f"{precision}, {word}" for precision, word in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_title(title, fontsize=10, loc="left")


def write_plot(path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same records."""
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    with mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9}):
        figure = Figure(figsize=(9, 6))
        figure.subplots_adjust(left=0.25, right=0.96, top=0.94, bottom=0.1, hspace=0.35)
        of_the_model, of_the_plan = figure.subplots(2, 1, height_ratios=(1, 1))
        draw(of_the_model, records, OF_THE_MODEL, ("sound", "garbled"), "Is it the model that its plan gives?")
        alone = [record for record in records if record["wanted"] != "garbled" and "plan_cost" in record["numbers"]]
        draw(of_the_plan, alone, ("plan_cost",), ("sound", "plan ruins the model"), "Does the plan ruin the model?")
        of_the_plan.set_xlim(1e-2, 1e1)
        of_the_plan.set_xlabel("share of the limit (1: the limit); what is beyond the scale lies on its edge")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_plot(PLOT)
