"""Draw docs/size.svg: the time per tensor and per shard, and the memory, beside how many there are.

`python docs_tests/size_plot.py` writes it from fixtures/size.json, which the benchmarks write.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RECORDS, PLOT = ROOT / "fixtures" / "size.json", ROOT / "docs" / "size.svg"
# Colours and shapes that stay apart for the colour-blind, and in print (Okabe and Ito 2008, Color Universal Design).
STYLES = {"plan": ("#0072b2", "o"), "prune": ("#d55e00", "^"), "audit": ("#666666", "s"), "parse": ("#009e73", "x")}
NAMES = {
    "plan": "plan",
    "prune": "prune --no-checksum --no-sync",
    "audit": "audit of the headers",
    "parse": "json.loads of the headers alone",
}
OURS = ("plan", "prune", "audit")


def draw_seconds(axes: Axes, records: list[dict[str, Any]], scale: float) -> None:
    """Draw the seconds for each of a count, times `scale`: the median of the rounds, and a band of all."""
    counts = [record["count"] for record in records]
    for what, (colour, marker) in STYLES.items():
        each = [[scale * seconds / record["count"] for seconds in record[what]["seconds"]] for record in records]
        medians = [statistics.median(rounds) for rounds in each]
        axes.plot(counts, medians, marker=marker, color=colour, linewidth=1, markersize=5, label=NAMES[what])
        shortest, longest = [min(rounds) for rounds in each], [max(rounds) for rounds in each]
        axes.fill_between(counts, shortest, longest, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(bottom=0)


def draw_memory(axes: Axes, records: list[dict[str, Any]]) -> None:
    """Draw the peak memory in MB."""
    for what, (colour, marker) in STYLES.items():
        values = [record[what]["peak"] / 1e6 for record in records]
        axes.plot(
            [record["count"] for record in records], values, marker=marker, color=colour, linewidth=1, markersize=5
        )
    axes.set_yscale("log")
    axes.set_ylim(1e1, 1e4)


def write_plot(path: Path) -> None:
    """Write the plot as SVG, the same bytes for the same records."""
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    with mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9}):
        figure = Figure(figsize=(9, 6))
        figure.subplots_adjust(left=0.08, right=0.97, top=0.94, bottom=0.09, hspace=0.35, wspace=0.22)
        panels = figure.subplots(2, 2)
        for column, (kind, unit, scale) in enumerate(
            [("tensors", "µs per tensor", 1e6), ("shards", "ms per shard", 1e3)]
        ):
            draw_seconds(panels[0][column], records[kind], scale)
            draw_memory(panels[1][column], records[kind])
            panels[0][column].set_title(f"{unit}, median and all rounds", fontsize=10, loc="left")
            panels[1][column].set_title("peak resident memory, MB", fontsize=10, loc="left")
            for axes in (panels[0][column], panels[1][column]):
                axes.set_xscale("log")
                axes.grid(color="#dddddd", linewidth=0.5)
        panels[1][0].set_xlabel("small tensors in one shard")
        panels[1][1].set_xlabel("shards of 5 GB (97: 235 billion parameters)")
        panels[0][0].legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_plot(PLOT)
