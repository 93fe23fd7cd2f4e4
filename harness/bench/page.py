"""A benchmark as an HTML page: what went away, what could not be measured, the picture, and every cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.page import page, plan_strip
from pruning import PrunePlan

from .measurement import Measurement
from .plot import benchmark_picture, plotted
from .record import Benchmark
from .view import COLUMNS, EXPLANATION, SPEED, cells, facts, rates, speed_is_noisy
from .words import arrived, percent, setting_text


@dataclass(frozen=True)
class _Costs:
    """The costs of the files, or of one way of loading: (setting, rows) by setting, and what is told first of each."""

    title: str
    settings: tuple[tuple[str, tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]], ...]
    told: tuple[tuple[str, str, str, str], ...]


def benchmark_page(benchmark: Benchmark) -> str:
    """Return the page of a benchmark."""
    measured = [_costs("on disk", benchmark.stored)]
    measured += [_costs(mode.name, mode.measurements) for mode in benchmark.modes if mode.skipped is None]
    return page(
        "benchmark.html",
        benchmark=benchmark,
        facts=facts(benchmark),
        noisy=SPEED if speed_is_noisy(benchmark) else None,
        measured=measured,
        skipped=[(mode.name, mode.skipped) for mode in benchmark.modes if mode.skipped is not None],
        notes=list(dict.fromkeys(note for mode in benchmark.modes for note in mode.notes)),
        plan=str(PrunePlan.from_dict(benchmark.plan)),
        strip=plan_strip(PrunePlan.from_dict(benchmark.plan), benchmark.environment.get("layers")),
        picture=benchmark_picture(benchmark),
        columns=COLUMNS,
        explanation=EXPLANATION,
        environment=benchmark.environment,
    )


def _costs(title: str, measurements: Sequence[Measurement]) -> _Costs:
    settings: dict[str, list[Measurement]] = {}
    for each in measurements:
        settings.setdefault(setting_text(each.setting), []).append(each)
    return _Costs(
        title,
        tuple(
            (setting, tuple((each.name, cells(each), rates(each)) for each in costs))
            for setting, costs in settings.items()
        ),
        tuple(
            (each.label, percent(each.removed), percent(each.predictions[0].removed), arrived(each))
            for each in plotted(measurements)
        ),
    )
