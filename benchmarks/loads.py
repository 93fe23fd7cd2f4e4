"""A load in fresh processes, and its first pass, beside that of a stock model with as many bytes, as figures."""

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import interleaved
from benchmarks.record import Amount, Figures, Ratio
from harness.bench.load_process import FreshLoads, Load, Which
from harness.loading_modes import LoadingMode
from harness.subject import Subject

MB = 1_000_000
MEMORY = {"gpu": "GPU", "anonymous": "anonymous", "file_backed": "file-backed"}  # of a Peak, and in words


def compare_loads(
    benchmark: BenchmarkFixture, loads: FreshLoads, figures: Figures, what: str, *, subject: Subject, which: Which,
    as_large: Subject, mode: LoadingMode, kept_bytes: int | None, memory: tuple[str, str], rounds: int,
) -> None:  # fmt: skip
    """Take up seconds and the two kinds of memory that are named, with the goals of ours where `kept_bytes` are."""
    ours: list[Load] = []
    theirs: list[Load] = []
    interleaved(
        benchmark,
        lambda: ours.append(loads.load(subject, mode, which)),
        {"as large": lambda: theirs.append(loads.load(as_large, mode, "base"))},
        prepare=lambda: None,
        rounds=rounds,
    )
    goal = "" if kept_bytes is None else "1.05 at most"
    for until, seconds in (("load", "bare_seconds"), ("load and first pass", "forward_seconds")):
        times, baseline = ([getattr(each, seconds) for each in loaded] for loaded in (ours, theirs))
        figures.add(Ratio.of(f"{what}, {until}", "stock, with as many bytes", times, baseline, goal))
    goal = "" if kept_bytes is None else f"{1.15 * kept_bytes / MB:.0f} MB at most: what is kept, and 15 %"
    for kind in memory:
        peaks = [getattr(each.forward, kind) / MB for each in ours]
        figures.add(
            Amount.of(f"{what}, peak {MEMORY[kind]} memory", peaks, "MB", "" if kind == "file_backed" else goal)
        )
