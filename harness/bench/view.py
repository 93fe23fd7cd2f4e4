"""A benchmark for the terminal: per way of loading a table of costs, each beside what the plan predicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table

from harness.report.terminal import counted, fitting, pairs, plain, section, stdout_console
from pruning import PrunePlan

from .measurement import Measurement
from .record import Benchmark
from .words import arrived, percent, planned, quantity, setting_text

SPEED = "machine's speed"
COLUMNS = ("cost", "base", "pruned", "gone", "single runs", "plan: bytes", "plan: multiply-adds", "arrived")
_NARROW = ("cost", "base", "pruned", "gone", "arrived")  # what fits 80 columns
EXPLANATION = (
    "gone: the share of the base's cost that the pruned model does not have; the median over pairs of "
    "neighbouring runs. arrived: this, as a share of what the plan removes: of multiply-adds until the first "
    "token, of bytes elsewhere; unclear where the runs differ too much to know it to half of that: take more "
    "--repeats, or a machine that does nothing else. warm, cold: whether the files lie in the "
    "system's cache. Memory is what is added by the load; pages of files can be given back at any time."
)
# A machine whose speed varies by more says little in few runs.
_NOISY = 0.1


def print_benchmark(benchmark: Benchmark, *, console: Console | None = None) -> None:
    """Write a benchmark for people to `console`, by default stdout."""
    out = console or stdout_console()
    sections: list[RenderableType] = [_summary(benchmark), section("on disk", "bold", _costs(benchmark.stored, out))]
    for mode in benchmark.modes:
        if mode.skipped is None:
            sections.append(section(mode.name, "bold", _costs(mode.measurements, out)))
    notes = dict.fromkeys(note for mode in benchmark.modes for note in mode.notes)
    sections += [plain(f"* {note}", "italic") for note in notes]
    sections += [*_skipped(benchmark), *_explanation(benchmark)]
    out.print(Group(*sections))


def _costs(measurements: Sequence[Measurement], console: Console) -> Table:
    return fitting(console, costs_table(measurements), costs_table(measurements, _NARROW))


def costs_table(measurements: Sequence[Measurement], columns: Sequence[str] = COLUMNS) -> Table:
    """Return a table of costs with these columns: a row each, those of one setting below its name."""
    table = Table()
    table.add_column(columns[0])
    for title in columns[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    setting: Mapping[str, int] = {}
    for each in measurements:
        if each.setting != setting:
            setting = each.setting
            table.add_section()
            table.add_row(plain(setting_text(setting), "bold"))
        values = dict(zip(COLUMNS[1:], cells(each), strict=True))
        table.add_row(plain(each.name), *(values[title] for title in columns[1:]))
        if each.tokens is not None:
            table.add_row("", *rates(each))
    return table


def cells(measurement: Measurement) -> tuple[str, ...]:
    """Return what stands beside a cost's name, in the order of `COLUMNS`."""
    return (
        *(quantity(statistics.median(runs), measurement.unit) for runs in (measurement.base, measurement.pruned)),
        percent(measurement.removed),
        _range(measurement),
        planned(measurement, "bytes"),
        planned(measurement, "multiply-adds"),
        arrived(measurement),
    )


def rates(measurement: Measurement) -> tuple[str, ...]:
    """Return the tokens a second of base and pruned model; nothing for a cost that handles no tokens."""
    if measurement.tokens is None:
        return ()
    return tuple(_rate(measurement.tokens, runs) for runs in (measurement.base, measurement.pruned))


def speed_spread(benchmark: Benchmark) -> float | None:
    """Return by what share of its median the machine's speed varied, between the quartiles; None for too few values."""
    if len(benchmark.clock) < 4:
        return None
    first, middle, third = statistics.quantiles(benchmark.clock, n=4)
    return (third - first) / middle


def speed_is_noisy(benchmark: Benchmark) -> bool:
    """Whether the machine's speed varied by so much that few runs say little."""
    spread = speed_spread(benchmark)
    return spread is not None and spread > _NOISY


def _summary(benchmark: Benchmark) -> RenderableType:
    noisy = speed_is_noisy(benchmark)
    rows = (
        (f"{name}:", plain(text, "bold yellow" if noisy and name == SPEED else "")) for name, text in facts(benchmark)
    )
    return pairs(*rows)


def facts(benchmark: Benchmark) -> list[tuple[str, str]]:
    """Return what was measured and where: names, and what they are."""
    rows = [
        ("checkpoint", benchmark.checkpoint),
        ("base", benchmark.base),
        ("plan", str(PrunePlan.from_dict(benchmark.plan))),
    ]
    environment = benchmark.environment
    if "devices" in environment:
        devices = ", ".join(map(str, environment["devices"]))
        threads, cpus = (
            counted(environment.get(name) or 0, thing) for name, thing in (("threads", "thread"), ("cpus", "CPU"))
        )
        rows.append(("machine", f"{devices}; {threads}, {cpus}"))
    spread = speed_spread(benchmark)
    if spread is not None:
        slowest = max(benchmark.clock) / min(benchmark.clock)
        rows.append((SPEED, f"varied by {spread:.0%} between the quartiles, {slowest:.1f}-fold in all"))
    return rows


def _rate(tokens: int, seconds: Sequence[float]) -> str:
    median = statistics.median(seconds)
    return f"{tokens / median:.1f} tokens/s" if median else ""


def _range(measurement: Measurement) -> str:
    if measurement.removed_range is None or len(set(measurement.ratios)) < 2:
        return ""
    low, high = measurement.removed_range
    return f"{low:.1%} to {high:.1%}"


def _skipped(benchmark: Benchmark) -> Iterator[RenderableType]:
    skipped = [(f"{mode.name}:", mode.skipped) for mode in benchmark.modes if mode.skipped is not None]
    if skipped:
        yield section("not measured", "bold yellow", pairs(*skipped))


def _explanation(benchmark: Benchmark) -> Iterator[RenderableType]:
    if not benchmark.is_empty:
        yield plain("")
        yield plain(EXPLANATION, "italic")
