"""The harness itself: seconds for each check of a tiny checkpoint, the slowest first, and for a drawn example."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import seconds_of
from benchmarks.record import Amount, Figures
from harness.judge.judge import check_checkpoint
from harness.strategies import checkpoints
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

SLOWEST, EXAMPLES = 10, 10
PLAIN: dict[str, Any] = {"device_map": ("plain",), "dtype": ("float32",), "quantisation": ()}


def test_checks(benchmark: BenchmarkFixture, figures: Figures, rounds: int, tmp_path: Path) -> None:
    """Every check of a tiny checkpoint, in every way of loading that can run here."""
    base, pruned = write_tiny_checkpoint(TinySpec(layers=4), tmp_path / "base"), tmp_path / "pruned"
    prune_checkpoint(base, pruned, PrunePlan(self_attn=(0, 1), mlp=(1,)), sync=False)
    figures.subject = "A tiny checkpoint of 4 layers, judged in every way of loading that runs without a GPU."
    reports = []
    seconds_of(benchmark, lambda: reports.append(check_checkpoint(pruned, base=base)), rounds=rounds, warmup_rounds=1)
    totals = [sum(check.seconds for check in report.checks) for report in reports[1:]]
    figures.add(Amount.of(f"all {len(reports[0].checks)} checks", totals, "s", ""))
    seconds: dict[str, list[float]] = {}
    for report in reports[1:]:
        for check in report.checks:
            seconds.setdefault(check.name, []).append(check.seconds)
    for name in sorted(seconds, key=lambda name: min(seconds[name]), reverse=True)[:SLOWEST]:
        figures.add(Amount.of(f"`{name}`", seconds[name], "s", ""))


def test_doctor(benchmark: BenchmarkFixture, figures: Figures, rounds: int) -> None:
    """The command `doctor`, with all that it imports, from its start to its end."""
    command = [str(Path(sys.executable).parent / "prunecheck"), "doctor"]
    seconds = seconds_of(
        benchmark, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), rounds=rounds
    )
    figures.add(Amount.of("`prunecheck doctor`", seconds, "s", "under 15"))


def test_examples(benchmark: BenchmarkFixture, figures: Figures, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A checkpoint and a plan that hypothesis draws, written, pruned and judged in plain float32."""
    seconds: list[float] = []

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def judge(data: st.DataObject) -> None:
        started = time.perf_counter()
        base, pruned = data.draw(checkpoints()).write(tmp_path_factory.mktemp("drawn"))
        assert check_checkpoint(pruned, base=base, **PLAIN).verdict == "sound"
        seconds.append(time.perf_counter() - started)

    seconds_of(benchmark, judge, rounds=1)
    figures.add(Amount.of("a drawn checkpoint, judged in plain float32", seconds, "s", ""))
