"""Two benchmarks compared: what got worse beyond the noise, what did not, and what one of them lacks."""

import pytest

from harness.bench.comparison import compare_benchmarks, print_benchmark_comparison
from harness.bench.measurement import Measurement
from tests.harness.bench.records import benchmark_of, seconds, size
from tests.harness.reports import printed

BEFORE = seconds("load", (1.0, 1.0, 1.0), (0.80, 0.81, 0.82))


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (seconds("load", (1.0, 1.0, 1.0), (0.88, 0.89, 0.90)), "worse"),
        (seconds("load", (3.0, 3.0, 3.0), (2.64, 2.67, 2.70)), "worse"),  # on a slower machine
        (seconds("load", (1.0, 1.0, 1.0), (0.70, 0.71, 0.72)), "better"),
        (seconds("load", (1.0, 1.0, 1.0), (0.80, 0.89, 0.98)), ""),  # too uncertain to say so
        (seconds("load", (1.0, 1.0, 1.0), (0.825, 0.826, 0.827)), ""),  # apart, but by less than a machine varies
        (seconds("load", (1.0, 1.0), (0.9, 0.9)), ""),  # too few runs to say so
        (BEFORE, ""),
    ],
)
def test_seconds(after: Measurement, word: str) -> None:
    """Seconds got worse or better beyond their uncertainty, and by more than two points of the base's."""
    comparison = compare_benchmarks(benchmark_of(BEFORE), benchmark_of(after))
    (change,) = (each for each in comparison.costs if each.label == "load")
    assert (change.is_worse, change.is_better) == (word == "worse", word == "better")
    assert comparison.is_regression == (word == "worse")
    text = printed(print_benchmark_comparison, comparison)
    assert ("regression: of 1 cost(s) less is gone than before" in text) == (word == "worse")
    assert ("no regression" in text) == (word != "worse")


@pytest.mark.parametrize(("pruned", "is_worse"), [(801, True), (800, False), (799, False)])
def test_bytes(pruned: int, is_worse: bool) -> None:
    """Bytes do not vary, so that one byte more is worse."""
    after = benchmark_of(stored=(size("weight files", 1000, pruned),))
    assert compare_benchmarks(benchmark_of(), after).is_regression == is_worse


def test_what_one_lacks() -> None:
    """What was measured by one alone is named, and is no regression: other options were given."""
    new = seconds("decode", (1.0,), (0.8,), setting={"batch": 4})
    comparison = compare_benchmarks(benchmark_of(BEFORE), benchmark_of(new))
    assert not comparison.is_regression
    lines = printed(print_benchmark_comparison, comparison).splitlines()
    assert lines[lines.index("measured before alone") + 1] == "plain-float32: load"
    assert lines[lines.index("measured after alone") + 1] == "plain-float32: decode, batch 4"


def test_versions_are_shown_where_they_differ() -> None:
    """The libraries' versions stand in the comparison of two that differ in them."""
    before, after = (benchmark_of(environment={"versions": {"torch": version}}) for version in ("2.4", "2.13"))
    assert "torch 2.13" in printed(print_benchmark_comparison, compare_benchmarks(before, after))
    assert "torch" not in printed(print_benchmark_comparison, compare_benchmarks(before, before))
