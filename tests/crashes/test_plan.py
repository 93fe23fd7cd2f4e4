"""`plan` killed at any moment, and before any call: called again, it comes to the very same numbers and plan."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.resuming import Resumed, resumed
from tests.crashes.test_prune import SIGNALS
from tests.harness.scan.scanned import scannable, write_text


@pytest.fixture(scope="module")
def planning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resumed]:
    """Yield a search of two sub-layers to remove, over two windows of text."""
    folder = tmp_path_factory.mktemp("searched")
    scannable(folder / "source", layers=2)
    write_text(folder / "text", 256)
    options = ("--drop", 2)
    out = tmp_path_factory.mktemp("first") / "out"
    with resumed(folder, "plan", options, ["search.json", "plan.json"], out) as search:
        yield search


@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_some_moments(kind: signal.Signals, planning: Resumed, tmp_path: Path) -> None:
    """Killed at a few moments, a search comes to the same numbers and plan, and the checkpoint is as it was."""
    planning.kill_at_moments(tmp_path, kind, 2)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_100_moments(kind: signal.Signals, planning: Resumed, tmp_path: Path) -> None:
    """Killed at 100 moments, a search comes to the same numbers and plan, and the checkpoint is as it was."""
    planning.kill_at_moments(tmp_path, kind, 100)


@pytest.mark.sweep
@pytest.mark.parametrize("earlier", [(), ("--drop", 1)], ids=["new", "after-another"])
def test_killed_before_any_call(earlier: tuple[object, ...], planning: Resumed, tmp_path: Path) -> None:
    """Killed before whichever call that changes something in its directory, each file is the old or the new one."""
    planning.kill_before_any_call(tmp_path, *earlier)
