"""Ours and its baselines by turns, A B A B: what slows the machine down for a while slows all of them."""

import mmap
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil
from pytest_benchmark.fixture import BenchmarkFixture

Work = Callable[[], object]


def interleaved(
    benchmark: BenchmarkFixture, ours: Work, baselines: Mapping[str, Work], *, prepare: Work, rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], dict[str, list[float]]]:  # fmt: skip
    """Run each baseline and then ours, `rounds` times, and return the seconds of each; `prepare` is not counted.

    `clock` counts the seconds; another one than the default is the timer of the test's mark `benchmark`, too.
    """
    theirs: dict[str, list[float]] = {name: [] for name in baselines}

    def run_baselines() -> None:
        for name, work in baselines.items():
            prepare()
            begin = clock()
            work()
            theirs[name].append(clock() - begin)
        prepare()

    times = seconds_of(benchmark, ours, setup=run_baselines, rounds=rounds)
    benchmark.extra_info["baselines"] = theirs
    return times, theirs


def seconds_of(benchmark: BenchmarkFixture, work: Work, **options: Any) -> list[float]:
    """Run work by `benchmark.pedantic` with its options, and return the seconds of each round."""
    pedantic: Any = benchmark.pedantic  # which has no types
    pedantic(work, **options)
    assert benchmark.stats is not None
    return list(benchmark.stats.stats.data)


def settle(size: int) -> None:
    """Have nothing waiting for the disk, and memory for `size` bytes at hand.

    Virtual machines give free memory back to their host, and to fetch it again takes longer than to copy into it.
    """
    os.sync()
    size = min(size, psutil.virtual_memory().available // 2)
    mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
