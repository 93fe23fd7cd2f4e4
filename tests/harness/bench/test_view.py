"""What people see of a benchmark: a table and a plot."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from harness import CannotRun
from harness.bench import plot
from harness.bench.measurement import Measurement
from harness.bench.plot import plotted, require_plottable, write_plot
from harness.bench.record import Benchmark, ModeRecord
from harness.bench.view import print_benchmark, speed_spread
from harness.bench.words import arrived, quantity
from tests.harness.bench.records import benchmark_of, benchmarks, seconds, size
from tests.harness.reports import printed


def rows(benchmark: Benchmark) -> dict[str, list[str]]:
    """The cells of all tables, by their first column."""
    lines = printed(print_benchmark, benchmark, width=200).splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return {first: others for first, *others in cells}


def test_table() -> None:
    """Each cost has both values, what is gone, in the median and in single runs, what the plan says, what arrived."""
    first = seconds("time to first token", (2.0, 2.0, 2.0), (1.8, 1.9, 1.7), setting={"batch": 2}, tokens=200)
    table = rows(benchmark_of(first, size("resident weights", 2_000_000, 1_600_000)))
    assert table["weight files"] == ["1.00 kB", "800 B", "20.0%", "", "20.0%", "", "100%"]
    assert table["time to first token"] == ["2.00 s", "1.80 s", "10.0%", "5.0% to 15.0%", "20.0%", "", "50% ± 23%"]
    assert "batch 2" in table
    assert table["resident weights"][:2] == ["2.00 MB", "1.60 MB"]


@pytest.mark.parametrize(
    ("pruned", "text"),
    [
        ((0.8, 0.8, 0.8), "100% ± 0%"),
        ((0.78, 0.8, 0.82), "100% ± 9%"),  # the quartiles are 0.02 apart
        ((0.7, 0.9, 1.1), "unclear"),
        ((1.1, 1.2, 1.3), "nothing"),
        ((0.8,), "unclear"),
    ],
)
def test_what_arrived(pruned: tuple[float, ...], text: str) -> None:
    """A gain has its uncertainty, and is unclear where that is over half of it; a cost that grew is no gain."""
    assert arrived(seconds("load", (1.0,) * len(pruned), pruned)) == text


def test_what_is_told_beside() -> None:
    """What could not be measured stands there with its reason, notes below their table, and how the machine varied."""
    modes = (
        ModeRecord("plain-float32", None, (), ("Loads are not measured: so it is.",)),
        ModeRecord("gpu-bfloat16", "this machine has 0 GPU(s), and it needs 1"),
    )
    text = printed(print_benchmark, benchmark_of(modes=modes, clock=(0.001, 0.001, 0.002, 0.002)))
    assert "* Loads are not measured: so it is." in text
    assert "gpu-bfloat16:  this machine has 0 GPU(s), and it needs 1" in text
    assert "varied by 67% between the quartiles, 2.0-fold in all" in text
    assert speed_spread(benchmark_of(clock=(0.001,))) is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (1.5, "s", "1.50 s"),
        (999, "B", "999 B"),
        (1500, "B", "1.50 kB"),
        (2e9, "B", "2.00 GB"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    """Bytes and seconds have a unit of their size."""
    assert quantity(value, unit) == text


@settings(max_examples=20)
@given(benchmarks)
def test_every_benchmark_can_be_shown(record: Benchmark) -> None:
    """Whatever a record holds, a table is made of it."""
    assert printed(print_benchmark, record)


@pytest.mark.parametrize(("name", "begins"), [("plot.png", b"\x89PNG"), ("plot.SVG", b"<?xml")])
def test_plot(tmp_path: Path, name: str, begins: bytes) -> None:
    """The suffix says what is drawn, and an SVG is the same bytes each time."""
    benchmark = benchmark_of(seconds("load", (1.0, 1.0), (0.9, 0.7)), seconds("decode", (1.0, 1.0), (1.2, 1.1)))
    write_plot(benchmark, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(begins)
    write_plot(benchmark, tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def test_plots_of_any_kind(tmp_path: Path) -> None:
    """Names that are no names of ours are drawn as they are, and so is a benchmark in which nothing was measured."""
    for record in (
        benchmark_of(size("$x_{", 1000, 800), checkpoint="/models/\x1f\n漢"),
        benchmark_of(stored=(), modes=(ModeRecord("plain-float32", "it is too large"),)),
    ):
        write_plot(record, tmp_path / "plot.png")


def test_what_is_plotted() -> None:
    """The plot shows what has a prediction to be held against."""
    without = Measurement("anonymous, load", "B", (1,), (1,))
    endless = size("load", 1, 1000)  # beside which nothing could be seen
    assert plotted([without, endless, size("weight files", 1000, 800), size("KV cache a token", 0, 0)]) == [
        size("weight files", 1000, 800)
    ]


def test_plots_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong suffix, a place that is none, and an absent library are told in one line, before any work."""

    def refused(path: Path) -> str:
        with pytest.raises(CannotRun) as caught:
            require_plottable(path)
        return str(caught.value)

    require_plottable(None)
    require_plottable(tmp_path / "plot.png")
    assert refused(tmp_path / "plot.pdf").endswith("no suffix that can be drawn: name a file that ends in .png or .svg")
    assert refused(tmp_path / "a" / "plot.png").endswith("a is no directory")
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    assert refused(tmp_path / "plot.png") == (
        "--plot needs matplotlib, which is not installed: pip install 'prunecheck[plot]'"
    )
