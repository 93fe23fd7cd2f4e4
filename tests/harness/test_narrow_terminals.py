"""On a terminal of 80 columns no table breaks a number, and no name of a way of loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.bench.view import print_benchmark
from harness.cli.demo import LOADING_MODES, DemoReport, DemoRow
from harness.cli.demo_view import _table
from harness.models.modes import loading_modes
from harness.planning.scan.view import print_scan
from harness.planning.search.view import print_search
from harness.report.outcomes import CheckRecord
from harness.report.report_view import print_report
from tests.harness.reports import report_of
from tests.harness.test_notebook import BENCHMARK, SCAN, SEARCH

DEMO = DemoReport(
    "base", {"self_attn": [1], "mlp": []}, 100, 90, "Why?",
    tuple(DemoRow(mode.name, "skipped", None, 123.4, 10**9, 0.000123, 0.00039) for mode in LOADING_MODES),
)  # fmt: skip
CHECKS = [
    CheckRecord(f"{mode.name}.load.{number}", outcome, "why", 1234.5)
    for number, outcome in enumerate(("passed", "failed", "error", "undecided", "skipped"))
    for mode in loading_modes()
]  # fmt: skip

SHOWN: dict[str, Callable[[Console], Any]] = {
    "check": lambda console: print_report(report_of(*CHECKS), console=console),
    "bench": lambda console: print_benchmark(BENCHMARK, console=console),
    "scan": lambda console: print_scan(SCAN, console=console),
    "plan": lambda console: print_search(SEARCH, console=console),
    "demo": lambda console: console.print(_table(DEMO)),
}


def words(width: int, show: Callable[[Console], Any], path: Path) -> set[str]:
    """Return the words that are shown on a terminal of a width."""
    with path.open("w", encoding="utf-8") as file:
        show(Console(file=file, width=width, highlight=False))
    text = path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= width
    return set(text.translate(dict.fromkeys(map(ord, "│┃━─┏┓┗┛┡┩└┘┳┻╇┴├┤┼┬"), " ")).split())


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_is_broken(name: str, tmp_path: Path) -> None:
    """What 80 columns show is whole words of what 300 columns show; a table may leave columns out."""
    assert words(80, SHOWN[name], tmp_path / "narrow") <= words(300, SHOWN[name], tmp_path / "wide")


def test_a_broken_word_is_found(tmp_path: Path) -> None:
    """A width at which nothing fits is found by this."""
    assert not words(12, SHOWN["plan"], tmp_path / "narrow") <= words(300, SHOWN["plan"], tmp_path / "wide")
