"""The record of a benchmark: what follows from the runs, and that JSON holds all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from harness import CannotRun
from harness.bench.measurement import Measurement, Prediction
from harness.bench.record import Benchmark
from tests.harness.bench.records import BYTES, benchmark_of, benchmarks, seconds, size
from tests.harness.reports import passed, report_of


@given(benchmarks)
def test_round_trip(record: Benchmark) -> None:
    """Whatever a benchmark holds, its JSON gives it back."""
    written = json.loads(json.dumps(record.to_dict()))
    assert Benchmark.is_in(written)
    assert Benchmark.from_dict(written) == record


def test_what_is_gone() -> None:
    """The share that is gone is that of the median pair of runs, not of the two medians: the machine may slow down."""
    cost = seconds("load", (1.0, 2.0, 4.0), (0.9, 1.6, 3.6))
    assert cost.removed == pytest.approx(0.1)
    assert cost.removed_range == pytest.approx((0.1, 0.2))
    assert BYTES.removed == pytest.approx(0.2)
    assert cost.arrived == pytest.approx(0.5)
    assert cost.uncertainty == pytest.approx(1.57 * 0.05 / 3**0.5)
    assert seconds("load", (1.0,), (0.9,)).uncertainty is None
    assert size("weight files", 1000, 900).uncertainty == 0


def test_what_cannot_be_told() -> None:
    """A cost that the base does not have has no share, and what the plan leaves as it is no gain to arrive."""
    nothing = Measurement("cache", "B", (0,), (0,), (Prediction("bytes", 0, 0),))
    assert (nothing.removed, nothing.removed_range, nothing.arrived) == (None, None, None)
    unpruned = Measurement("load", "s", (1.0,), (1.0,), (Prediction("bytes", 10, 10),))
    assert (unpruned.removed, unpruned.arrived) == (0, None)
    assert Measurement("load", "s", (1.0,), (0.5,)).arrived is None


def test_more_costs_have_other_labels() -> None:
    """Two records are compared by what was measured and under which circumstances."""
    cost = seconds("decode", (1.0,), (1.0,), setting={"batch": 2, "prompt tokens": 8})
    assert benchmark_of(cost).measurements().keys() == {
        ("", "weight files"),
        ("plain-float32", "decode, batch 2, prompt tokens 8"),
    }


def _with(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(benchmark_of(seconds("load", (1.0,), (1.0,))).to_dict()))
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("kind",), "report"),
        (("checkpoint",), 1),
        (("plan",), []),
        (("modes",), None),
        (("modes", 0), "plain"),
        (("modes", 0, "skipped"), 1),
        (("modes", 0, "measurements", 0, "base"), ["1"]),
        (("modes", 0, "measurements", 0, "base"), [1, 2]),
        (("modes", 0, "measurements", 0, "unit"), "m"),
        (("stored", 0, "predictions", 0), {"quantity": "bytes"}),
        (("stored", 0, "setting"), {"batch": "1"}),
        (("clock",), 1),
    ],
    ids=str,
)
def test_something_else(path: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    """A file that holds anything else is told of in one line that names it."""
    file = tmp_path / "record.json"
    file.write_text(json.dumps(_with(path, value)), encoding="utf-8")
    with pytest.raises(CannotRun, match=r"^[^\n]*record\.json is not a benchmark of prunecheck: [^\n]+$"):
        Benchmark.from_file(file)


def test_a_report_is_none() -> None:
    """The report of a check is not taken for a benchmark."""
    assert not Benchmark.is_in(report_of(passed("stored.keys")).to_dict())
