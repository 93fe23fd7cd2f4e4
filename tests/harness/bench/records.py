"""Benchmarks made by hand and drawn."""

from typing import Any

from hypothesis import strategies as st

from harness.bench.measurement import Measurement, Prediction, counted
from harness.bench.record import Benchmark, ModeRecord

BYTES = Prediction("bytes", 1000, 800)


def seconds(name: str, base: tuple[float, ...], pruned: tuple[float, ...], **other: Any) -> Measurement:
    """A cost in seconds of which the plan removes a fifth."""
    return Measurement(name, "s", base, pruned, (BYTES,), **other)


def size(name: str, base: int, pruned: int, **other: Any) -> Measurement:
    """A counted cost of which the plan removes a fifth."""
    return counted(name, base, pruned, BYTES, **other)


def benchmark_of(*costs: Measurement, **other: Any) -> Benchmark:
    """A benchmark of one way of loading, which has these costs."""
    fields: dict[str, Any] = {
        "checkpoint": "/models/slim",
        "base": "/models/base",
        "plan": {"self_attn": [0, 2], "mlp": [1]},
        "stored": (size("weight files", 1000, 800),),
        "modes": (ModeRecord("plain-float32", None, costs),),
        "clock": (0.001, 0.001, 0.001, 0.001),
        "environment": {"devices": ["cpu"], "threads": 1, "cpus": 2},
    }
    return Benchmark(**{**fields, **other})


_numbers = st.floats(0, 1e12) | st.integers(0, 10**15)
_predictions = st.builds(Prediction, st.sampled_from(("bytes", "multiply-adds")), _numbers, _numbers)


@st.composite
def _measurements(draw: st.DrawFn) -> Measurement:
    runs = draw(st.lists(st.tuples(_numbers, _numbers), min_size=1, max_size=3))
    return Measurement(
        name=draw(st.text()),
        unit=draw(st.sampled_from(("B", "s"))),
        base=tuple(base for base, _ in runs),
        pruned=tuple(pruned for _, pruned in runs),
        predictions=tuple(draw(st.lists(_predictions, max_size=2))),
        setting=draw(st.dictionaries(st.text(), st.integers(), max_size=2)),
        tokens=draw(st.none() | st.integers(1, 10**9)),
        is_counted=draw(st.booleans()),
    )


_lists = st.lists(_measurements(), max_size=2).map(tuple)
_modes = st.builds(
    ModeRecord, st.text(), st.none() | st.text(), _lists, st.lists(st.text(), max_size=2).map(tuple)
)  # fmt: skip
benchmarks = st.builds(
    Benchmark,
    checkpoint=st.text(),
    base=st.text(),
    plan=st.just({"self_attn": [0], "mlp": []}),
    stored=_lists,
    modes=st.lists(_modes, max_size=2).map(tuple),
    clock=st.lists(_numbers, max_size=3).map(tuple),
    environment=st.dictionaries(st.text(), st.integers() | st.lists(st.text(), max_size=2), max_size=2),
)
