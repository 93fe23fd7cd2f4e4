"""`scan` killed at any moment, and before any call: called again, it comes to the very same numbers."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crashes.killing import Ended, Killer, killer, moments
from tests.crashes.test_prune import SIGNALS, digests
from tests.harness.scan.scanned import scannable, write_text

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds a checkpoint and a text."""
    folder = tmp_path_factory.mktemp("scanned")
    scannable(folder / "source", layers=2)
    write_text(folder / "text", 1300)
    return folder


def command(scanned: Path, out: Path) -> list[object]:
    """Return the command line of a scan of ten windows, by one measure: each has a picture, which takes long."""
    options = ["--text", scanned / "text", "--tokens", 1280, "--metric", "nll"]
    return ["scan", scanned / "source", "--out", out, *options]


@pytest.fixture(scope="module")
def scanning(scanned: Path) -> Iterator[tuple[Killer, dict[str, Any], float]]:
    """Yield what runs scans, what the record of one that nothing interrupts says, and its seconds."""
    with killer(*map(str, command(scanned, scanned / "first"))) as killing:
        ended = killing.run(*command(scanned, scanned / "whole"))
        assert ended.code == 0, ended
        yield killing, record(scanned / "whole"), ended.seconds


def record(out: Path) -> dict[str, Any]:
    """Return a scan's record, without what it ran on."""
    content: dict[str, Any] = json.loads((out / "scan.json").read_text())
    del content["environment"]
    return content


def require_same_numbers(scanned: Path, out: Path, ended: Ended, killing: Killer, whole: dict[str, Any]) -> None:
    """Judge what a killed scan left, and what the same command makes of it."""
    assert "Traceback" not in ended.output, ended
    assert ended.code in (0, -signal.SIGKILL, 143, 130), ended
    if (out / "scan.json").exists():
        assert record(out) == whole
    again = killing.run(*command(scanned, out))
    assert again.code == 0, again
    assert record(out) == whole
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def kill_at_moments(
    scanned: Path, scanning: tuple[Killer, dict[str, Any], float], folder: Path, kind: signal.Signals, count: int
) -> None:
    """Kill a scan at `count` moments of its whole length, and judge each."""
    killing, whole, seconds = scanning
    before = digests(scanned / "source")
    for number, moment in enumerate(moments(seconds, count, seed=kind)):
        out = folder / str(number)
        ended = killing.run_until(moment, kind, *command(scanned, out))
        require_same_numbers(scanned, out, ended, killing, whole)
    assert digests(scanned / "source") == before


@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_100_moments(
    kind: signal.Signals, scanned: Path, scanning: tuple[Killer, dict[str, Any], float], tmp_path: Path
) -> None:
    """Killed at 100 moments, a scan comes to the same numbers each time, and the checkpoint is as it was."""
    kill_at_moments(scanned, scanning, tmp_path, kind, 100)


def test_killed_before_any_call(scanned: Path, scanning: tuple[Killer, dict[str, Any], float], tmp_path: Path) -> None:
    """Killed before whichever call that changes something in its directory, it comes to the same numbers."""
    killing, whole, _ = scanning
    for number in range(200):
        out = tmp_path / str(number)
        ended = killing.run_until_call(number, signal.SIGKILL, out, *command(scanned, out))
        require_same_numbers(scanned, out, ended, killing, whole)
        if ended.code == 0:
            break
    assert number > 10, "too few calls were seen"
