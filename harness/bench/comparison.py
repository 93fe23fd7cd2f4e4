"""Two benchmarks side by side: what another version of a library, or another plan, changed in what pruning gains.

Costs are compared as shares of the base's, which was measured beside them: so two machines, too, can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table

from harness.report.terminal import plain, section, stdout_console
from pruning import PrunePlan

from .measurement import Measurement
from .record import Benchmark
from .view import speed_spread
from .words import percent

_NOTICEABLE: Final = 0.02
"""The least change of a share that is told of, beyond the uncertainty; of what is counted, every change is."""
_FEWEST: Final = 3
"""Runs that a benchmark must have for it to say something of what is not counted."""


@dataclass(frozen=True)
class CostChange:
    """A cost in two benchmarks; None where it was not measured."""

    mode: str
    label: str
    before: Measurement | None
    after: Measurement | None

    @property
    def change(self) -> float | None:
        """By how much the share that is gone grew, in parts of the base's cost; negative where gain was lost."""
        if self.before is None or self.after is None or self.before.removed is None or self.after.removed is None:
            return None
        return self.after.removed - self.before.removed

    @property
    def is_apart(self) -> bool:
        """Whether the shares differ by more than both are uncertain."""
        if self.before is None or self.after is None or self.change is None:
            return False
        if not self._is_counted and min(len(self.before.base), len(self.after.base)) < _FEWEST:
            return False
        before, after = self.before.uncertainty, self.after.uncertainty
        return before is not None and after is not None and abs(self.change) > before + after

    @property
    def is_worse(self) -> bool:
        """Whether gain was lost, by more than the uncertainty, and than machines differ anyway."""
        if self.change is None or not self.is_apart:
            return False
        return self.change < (0 if self._is_counted else -_NOTICEABLE)

    @property
    def is_better(self) -> bool:
        """Whether gain was won, in the same sense."""
        if self.change is None or not self.is_apart:
            return False
        return self.change > (0 if self._is_counted else _NOTICEABLE)

    @property
    def _is_counted(self) -> bool:
        return self.before is not None and self.before.is_counted


@dataclass(frozen=True)
class BenchmarkComparison:
    """Two benchmarks and every cost that one of them has."""

    before: Benchmark
    after: Benchmark
    costs: tuple[CostChange, ...]

    @property
    def is_regression(self) -> bool:
        """Whether any cost got worse. One that is measured no more is shown, and counts for nothing."""
        return any(change.is_worse for change in self.costs)


def compare_benchmarks(before: Benchmark, after: Benchmark) -> BenchmarkComparison:
    """Return what changed from `before` to `after`."""
    was, now = before.measurements(), after.measurements()
    changes = (CostChange(*key, was.get(key), now.get(key)) for key in dict.fromkeys((*was, *now)))
    return BenchmarkComparison(before, after, tuple(changes))


def print_benchmark_comparison(comparison: BenchmarkComparison, *, console: Console | None = None) -> None:
    """Write a comparison for people to `console`, by default stdout."""
    sections = [_summary(comparison), *_costs(comparison), *_lost(comparison), _conclusion(comparison)]
    (console or stdout_console()).print(Group(*sections))


def _summary(comparison: BenchmarkComparison) -> Table:
    table = _table("", "before", "after")
    both = (comparison.before, comparison.after)
    for name in ("checkpoint", "base"):
        table.add_row(name, *(plain(getattr(each, name)) for each in both))
    table.add_row("plan", *(plain(PrunePlan.from_dict(each.plan)) for each in both))
    for name in ("devices", "threads", "versions"):
        values = [each.environment.get(name) for each in both]
        if name == "versions" and values[0] == values[1]:
            continue
        table.add_row(name, *(plain(_said(value)) for value in values))
    table.add_row("speed varied by", *(percent(speed_spread(each)) for each in both))
    return table


def _costs(comparison: BenchmarkComparison) -> Iterator[RenderableType]:
    table = _table("", "cost", "gone before", "gone after", "")
    shown = [each for each in comparison.costs if each.change is not None and (each.before or each.after)]
    for each in shown:
        word, style = (
            ("worse", "bold red") if each.is_worse else ("better", "bold green") if each.is_better else ("", "")
        )
        table.add_row(
            plain(each.mode or "on disk"), plain(each.label), _gone(each.before), _gone(each.after), plain(word, style)
        )
    if shown:
        yield section("what is gone of the base's cost", "bold", table)


def _lost(comparison: BenchmarkComparison) -> Iterator[RenderableType]:
    for title, names in (
        ("measured before alone", [each for each in comparison.costs if each.after is None]),
        ("measured after alone", [each for each in comparison.costs if each.before is None]),
    ):
        if names:
            yield section(title, "bold", *(plain(f"{each.mode or 'on disk'}: {each.label}") for each in names))


def _conclusion(comparison: BenchmarkComparison) -> RenderableType:
    worse = sum(each.is_worse for each in comparison.costs)
    if not worse:
        return section("no regression: no gain was lost beyond the uncertainty", "bold green")
    return section(f"regression: of {worse} cost(s) less is gone than before", "bold red")


def _gone(measurement: Measurement | None) -> str:
    if measurement is None or measurement.removed is None:
        return ""
    uncertainty = measurement.uncertainty
    return percent(measurement.removed) + (f" ± {percent(uncertainty)}" if uncertainty else "")


def _table(*titles: str) -> Table:
    table = Table()
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
