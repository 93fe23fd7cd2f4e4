"""Estimates and views of a scan: intervals, ranking, what is noise, what is not finite."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from harness.planning.scan.estimate import METRICS, Estimate, estimate
from harness.planning.scan.plot import write_pictures
from harness.planning.scan.record import Contribution, Distance, Scan, Window
from harness.planning.scan.view import print_scan

pytestmark = pytest.mark.newest


def scan_of(*values: tuple[float | None, ...], layers: int = 0) -> Scan:
    """Return a scan in which removing the mlp of each layer makes the NLL rise by these values, one a window."""
    return Scan(
        checkpoint="somewhere/\x1b[2J$x$",
        plan={"self_attn": [], "mlp": []},
        layers=layers or len(values),
        mode="plain-float32",
        metrics=("nll", "angular"),
        window_tokens=128,
        windows=tuple(Window("prose", 128 * number, 2.0) for number in range(len(values[0]))),
        contributions=tuple(Contribution("mlp", index, {"nll": each}) for index, each in enumerate(values)),
        distances=(Distance(0, 1, values[0]),),
        environment={},
    )


def test_intervals() -> None:
    """The interval is where the mean of as many windows lies in 95 of 100 repetitions, and the same every time."""
    inside = 0
    for seed in range(200):
        values = tuple(np.random.default_rng(seed).normal(1.0, 2.0, 40).tolist())
        found = estimate(values)
        assert found == estimate(values)
        assert found.mean == pytest.approx(np.mean(values))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 198


def test_windows_that_allow_no_interval() -> None:
    """One window has a mean alone, and a value that is not finite has neither, rather than a mean of the others."""
    assert estimate((3.0,)) == Estimate(3.0, None, None)
    assert estimate((3.0, None)) == Estimate(None, None, None)
    assert estimate((3.0, 3.0)) == Estimate(3.0, 3.0, 3.0)


def test_view() -> None:
    """What is least missed comes first, noise is marked, what is not finite comes last, and no name is obeyed."""
    text = StringIO()
    scan = scan_of((1.0, 1.5), (-0.1, 0.2), (None, 1.0), (0.1, 0.3))
    print_scan(scan, console=Console(file=text, width=160))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    rows = [line for line in lines if line.startswith("mlp")]
    assert [row.split("  ")[0] for row in rows] == ["mlp 1", "mlp 3", "mlp 0", "mlp 2"]
    assert "~ 0.05 (-0.1 to 0.2)" in rows[0]
    assert "0.2 (0.1 to 0.3)" in rows[1]
    assert "~" not in rows[1]
    assert "not finite" in rows[3]
    assert "\x1b" not in text.getvalue()


def test_a_long_ranking_is_cut() -> None:
    """Of many layers the first and the last are shown, and how many there are between."""
    text = StringIO()
    print_scan(scan_of(*((float(index),) for index in range(40))), console=Console(file=text, width=160))
    assert "... 15 more" in text.getvalue()
    assert "One window tells no noise" in text.getvalue()


def test_pictures(tmp_path: Path) -> None:
    """Each metric becomes a PNG and an SVG, the same bytes for the same record, also where nothing is finite."""
    pytest.importorskip("matplotlib")
    for number, values in enumerate((((1.0, 1.5), (-0.1, 0.2), (None, 1.0)), ((None,), (None,)))):
        scan = scan_of(*values)
        (tmp_path / str(number)).mkdir()
        paths = write_pictures(scan, tmp_path / str(number))
        assert [path.name for path in paths] == ["nll.png", "nll.svg", "angular.png", "angular.svg"]
        before = [path.read_bytes() for path in paths]
        assert before[0].startswith(b"\x89PNG")
        assert b"somewhere" not in before[1] or b"\x1b" not in before[1]
        assert [path.read_bytes() for path in write_pictures(scan, tmp_path / str(number))] == before


def test_every_metric_says_what_it_is() -> None:
    """Every metric has a label, and what is a quantity has a unit."""
    assert all(metric.label for metric in METRICS.values())
    assert [name for name, metric in METRICS.items() if not metric.unit] == ["influence", "update"]
