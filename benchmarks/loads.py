"""A load in fresh processes, and its first pass, beside that of a stock model with as many bytes, as figures."""

from collections.abc import Callable, Mapping

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import interleaved
from benchmarks.record import Amount, Figures, Ratio
from harness.bench.fresh_process import Load

MB = 1_000_000
STOCK = "stock, with as many bytes"
MEMORY = {"gpu": "GPU", "anonymous": "anonymous", "file_backed": "file-backed"}  # of a Peak, and in words


def compare_loads(
    benchmark: BenchmarkFixture, figures: Figures, what: str, *, ours: Callable[[], Load],
    baselines: Mapping[str, Callable[[], Load]], kept_bytes: int | None, memory: tuple[str, str], rounds: int,
) -> None:  # fmt: skip
    """Take up seconds beside each baseline, and the two kinds of memory that are named.

    Where `kept_bytes` are given they have goals: the memory, and the seconds beside the baseline `STOCK`.
    """
    loaded: list[Load] = []
    theirs: dict[str, list[Load]] = {name: [] for name in baselines}
    interleaved(
        benchmark,
        _kept(ours, loaded),
        {name: _kept(load, theirs[name]) for name, load in baselines.items()},
        prepare=lambda: None,
        rounds=rounds,
    )
    for name in baselines:
        goal = "1.05 at most" if kept_bytes is not None and name == STOCK else ""
        for until, seconds in (("load", "bare_seconds"), ("load and first pass", "forward_seconds")):
            times, baseline = ([getattr(each, seconds) for each in some] for some in (loaded, theirs[name]))
            figures.add(Ratio.of(f"{what}, {until}", name, times, baseline, goal))
    goal = "" if kept_bytes is None else f"{1.15 * kept_bytes / MB:.0f} MB at most: what is kept, and 15 %"
    for kind in memory:
        peaks = [getattr(each.forward, kind) / MB for each in loaded]
        figures.add(
            Amount.of(f"{what}, peak {MEMORY[kind]} memory", peaks, "MB", "" if kind == "file_backed" else goal)
        )


def _kept(load: Callable[[], Load], loads: list[Load]) -> Callable[[], None]:
    """Return work that loads and keeps what the load came to."""
    return lambda: loads.append(load())
