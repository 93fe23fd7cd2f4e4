"""Options, and what becomes of the figures: a table on the terminal, and the record behind the page."""

import os
from collections.abc import Iterator

import pytest

from benchmarks.record import Figures, tables
from harness.bench.fresh_process import FreshLoads

KEPT: list[Figures] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the benchmarks run small, to see that they work."""
    group = parser.getgroup("benchmarks of prunecheck")
    group.addoption("--size", type=float, default=3.44, help="GB of the synthetic checkpoint that is written (3.44)")
    group.addoption(
        "--gpu", default="cuda", help="what runs the large model (cuda); cpu, with a small --size, tries it"
    )
    group.addoption("--rounds", type=int, default=7, help="how often each is measured, by turns (7)")


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """The figures of a module `test_<section>.py`; with PRUNECHECK_REWRITE set they replace what the page says."""
    section = Figures(request.module.__name__.rpartition(".")[2].removeprefix("test_"))
    KEPT.append(section)
    yield section
    if os.environ.get("PRUNECHECK_REWRITE"):
        section.keep()


@pytest.fixture(scope="module")
def loads() -> Iterator[FreshLoads]:
    """Yield what loads in fresh processes."""
    fresh = FreshLoads()
    yield fresh
    fresh.close()


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> int:
    """How often each is measured."""
    return int(pytestconfig.getoption("--rounds"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the tables."""
    for section in KEPT:
        terminalreporter.section(f"figures: {section.section}")
        terminalreporter.write(tables(section.to_dict()))
