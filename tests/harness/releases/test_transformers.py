"""Real releases: the argument that transformers renamed in 5.24.0 is found to be what broke a checkpoint of 0.1.0's.

These ask the package index that pip is set to.
"""

import json
import shutil
from pathlib import Path

import pytest

from harness.releases.record import Bisection
from tests.harness.command_line import run

pytestmark = pytest.mark.newest

RELEASED = Path(__file__).parents[3] / "fixtures" / "released" / "0.1.0"
CHECK = "plain-float32.cache.dynamic.one-step-at-a-time"


def with_released_code(checkpoint: Path, destination: Path) -> Path:
    """Return a copy of a pruned checkpoint that carries the code of prunecheck 0.1.0, as that wrote it."""
    shutil.copytree(checkpoint, destination, ignore=shutil.ignore_patterns("*.py"))
    for path in RELEASED.glob("*.py"):
        shutil.copy(path, destination)
    config = json.loads((destination / "config.json").read_text())
    del config["auto_map"]["AutoModel"]
    (destination / "config.json").write_text(json.dumps(config))
    return destination


def test_the_release_that_broke_a_checkpoint(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From 5.22.2 to 5.24.0, the first at which decoding through a cache is wrong is 5.24.0, and the check is named."""
    monkeypatch.setenv("PRUNECHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)  # of the tests' environment, for its own packages
    old = with_released_code(pair[1], tmp_path / "old")
    command = ("bisect", old, "--base", pair[0], "--package", "transformers", "--good", "5.22.2", "--bad", "5.24.0")
    assert run(monkeypatch, *command, "-k", CHECK, "--json", tmp_path / "found.json") == 0
    assert "changes at transformers 5.24.0; 5.23.0 is the last release before the change" in capfd.readouterr().out
    found = Bisection.from_file(tmp_path / "found.json")
    assert list(found.judged) == ["5.22.2", "5.23.0", "5.24.0"]
    assert [(change.name, change.before, change.after) for change in found.comparison.checks] == [
        (CHECK, "passed", "failed")
    ]
    assert {record.versions["transformers"] for record in found.judged.values()} == set(found.judged)
