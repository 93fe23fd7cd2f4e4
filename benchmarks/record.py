"""The figures of a run: a JSON record, and the tables of `docs/performance.md` made from it."""

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "fixtures" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", flags=re.DOTALL)


_FINE = ("s", "times")  # units of which fractions count


@dataclass(frozen=True)
class Ratio:
    """Seconds beside those of a baseline, medians of rounds in turn; of the rounds' own ratios, median and extremes."""

    what: str
    baseline: str
    seconds: float
    baseline_seconds: float
    ratio: float
    lowest: float
    highest: float
    rounds: int
    goal: str

    @classmethod
    def of(
        cls, what: str, baseline: str, times: Sequence[float], baseline_times: Sequence[float], goal: str
    ) -> "Ratio":
        """Compare the seconds of each round with the baseline's of the same round."""
        ratios = [mine / theirs for mine, theirs in zip(times, baseline_times, strict=True)]
        return cls(
            what=what,
            baseline=baseline,
            seconds=statistics.median(times),
            baseline_seconds=statistics.median(baseline_times),
            ratio=statistics.median(ratios),
            lowest=min(ratios),
            highest=max(ratios),
            rounds=len(ratios),
            goal=goal,
        )

    def cells(self) -> list[str]:
        """Return the row of the table of ratios."""
        return [
            self.what,
            _time(self.seconds),
            self.baseline,
            _time(self.baseline_seconds),
            f"**{self.ratio:.2f}** ({self.lowest:.2f} to {self.highest:.2f})",
            self.goal,
        ]


@dataclass(frozen=True)
class Amount:
    """A figure that stands for itself: seconds or bytes, the median of rounds and their extremes."""

    what: str
    value: float
    lowest: float
    highest: float
    unit: str
    rounds: int
    goal: str

    @classmethod
    def of(cls, what: str, values: Sequence[float], unit: str, goal: str) -> "Amount":
        """Sum up rounds."""
        return cls(what, statistics.median(values), min(values), max(values), unit, len(values), goal)

    def cells(self) -> list[str]:
        """Return the row of the table of amounts."""
        low, value, high = (f"{number:.{2 if self.unit in _FINE else 0}f}" for number in
                            (self.lowest, self.value, self.highest))  # fmt: skip
        return [self.what, f"**{value} {self.unit}** ({low} to {high})", self.goal]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


_HEADS = {
    Ratio: ["ours", "time", "baseline", "time", "ratio (lowest to highest round)", "goal"],
    Amount: ["what", "figure (lowest to highest round)", "goal"],
}


class Figures:
    """What one section of the page says: the machine, what was measured on, ratios and amounts."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.machine = machine()
        self.load = [os.getloadavg()[0]]
        self.subject = ""
        self.rows: list[Ratio | Amount] = []

    def add(self, figure: Ratio | Amount) -> None:
        """Take up a figure."""
        self.rows.append(figure)

    def to_dict(self) -> dict[str, Any]:
        """Return the section of the record."""
        return {
            "machine": self.machine,
            "load": [round(load, 1) for load in (*self.load, os.getloadavg()[0])],
            "subject": self.subject,
            "ratios": [asdict(row) for row in self.rows if isinstance(row, Ratio)],
            "amounts": [asdict(row) for row in self.rows if isinstance(row, Amount)],
        }

    def keep(self) -> None:
        """Write the section to the record, and the page anew."""
        record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        record[self.section] = self.to_dict()
        RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        PAGE.write_text(fill_in(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


def machine() -> str:
    """Describe the machine in general words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{len(os.sched_getaffinity(0))} processors ({platform.machine()}), {memory:.0f} GiB of memory, Linux"


def fill_in(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables as the record has them."""
    return _BLOCK.sub(lambda block: f"{block[1]}{tables(record.get(block[2]))}{block[3]}", page)


def tables(section: dict[str, Any] | None) -> str:
    """Return one section of the record as Markdown."""
    if section is None:
        return "\nNot measured yet.\n\n"
    first, last = section["load"]
    text = (
        f"\nOn {section['machine']}; load average {first} at the beginning, {last} at the end. {section['subject']}\n\n"
    )
    for kind, name in ((Ratio, "ratios"), (Amount, "amounts")):
        rows = [kind(**row).cells() for row in section[name]]
        if rows:
            head = _HEADS[kind]
            text += "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows]) + "\n"
    return text
