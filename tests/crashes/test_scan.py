"""`scan` killed at any moment, and before any call: called again, it comes to the very same numbers."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.resuming import Resumed, resumed
from tests.crashes.test_prune import SIGNALS
from tests.harness.scan.scanned import scannable, write_text

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def scanning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Resumed]:
    """Yield a scan of ten windows, by one measure: each has a picture, which takes long."""
    folder = tmp_path_factory.mktemp("scanned")
    scannable(folder / "source", layers=2)
    write_text(folder / "text", 1300)
    options = ("--tokens", 1280, "--metric", "nll")
    with resumed(folder, "scan", options, ["scan.json"], tmp_path_factory.mktemp("first") / "out") as scan:
        yield scan


@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_100_moments(kind: signal.Signals, scanning: Resumed, tmp_path: Path) -> None:
    """Killed at 100 moments, a scan comes to the same numbers each time, and the checkpoint is as it was."""
    scanning.kill_at_moments(tmp_path, kind, 100)


def test_killed_before_any_call(scanning: Resumed, tmp_path: Path) -> None:
    """Killed before whichever call that changes something in its directory, it comes to the same numbers."""
    scanning.kill_before_any_call(tmp_path)
