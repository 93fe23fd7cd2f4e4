"""`prune` killed at any moment, and before any call: old or new, whole, and all else is swept by the next run."""

import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pruning import PrunePlan, prune_checkpoint
from tests.crashes.killing import Ended, Killer, moments
from tests.unit.checkpoints import keys_of_model, tiny_config, write_weights

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PLAN = PrunePlan(mlp=(0,))

Digests = dict[str, str]


def digests(root: Path) -> Digests:
    """Return the sha256 of every file below a directory by its relative path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Scene:
    """A source and a destination `out` in one folder, and the files of the source, of what was there, of what comes."""

    folder: Path
    source: Digests
    old: Digests | None
    new: Digests

    @property
    def out(self) -> Path:
        """The destination."""
        return self.folder / "out"

    @property
    def command(self) -> list[object]:
        """The command line that writes it."""
        return ["prune", self.folder / "source", self.out, "--mlp", "0"]

    @property
    def replacing(self) -> list[object]:
        """The same, with leave to replace what is there."""
        return [*self.command, *(["--overwrite"] if self.old is not None else [])]

    def begin(self) -> None:
        """Make the destination what it was before."""
        if self.out.exists() and digests(self.out) != self.old:
            shutil.rmtree(self.out)
        if self.old is not None and not self.out.exists():
            prune_checkpoint(self.folder / "source", self.out, PrunePlan(), sync=False)


def make_scene(folder: Path, *, rows: int, was_there: bool) -> Scene:
    """Write a checkpoint of tensors of so many rows of 2 kB, and find out what pruning it gives."""
    source = folder / "source"
    source.mkdir(parents=True)
    write_weights(source, {key: ("BF16", [rows, 1024]) for key in keys_of_model(2)}, shards=3)
    (source / "config.json").write_text(json.dumps(tiny_config(2)))
    (source / "tokenizer.json").write_text("{}")
    prune_checkpoint(source, folder / "new", PLAN, sync=False)
    prune_checkpoint(source, folder / "old", PrunePlan(), sync=False)
    scene = Scene(folder, digests(source), digests(folder / "old") if was_there else None, digests(folder / "new"))
    shutil.rmtree(folder / "new")
    shutil.rmtree(folder / "old")
    return scene


def require_old_or_new(scene: Scene, ended: Ended, killing: Killer) -> str:
    """Judge what a killed command left, and what the next run makes of it; return what was there after the kill."""
    assert "Traceback" not in ended.output, ended
    assert digests(scene.folder / "source") == scene.source
    found = digests(scene.out) if scene.out.exists() else None
    assert found in (None, scene.old, scene.new), "a destination that is neither the old nor the new"
    if ended.code != -signal.SIGKILL:  # then it had the time to put back what was there
        assert found is not None or scene.old is None, ended
    others = {name for name in os.listdir(scene.folder) if not name.startswith(".out.prunecheck-")}
    assert others <= {"source", "out"}
    next_run = killing.run(*scene.command, "--no-sync")  # without leave to replace anything: what it finds shall stay
    before = found or scene.old
    assert next_run.code == (0 if before is None else 2), next_run
    assert digests(scene.out) == (before or scene.new)
    assert sorted(os.listdir(scene.folder)) == ["out", "source"]
    return "absent" if found is None else "new" if found == scene.new else "old"


@pytest.fixture(params=[False, True], ids=["absent", "overwrite"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A scene in which copying takes a call or two for each shard, in memory where there is such a place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else tmp_path) as folder:
        yield make_scene(Path(folder), rows=2, was_there=request.param)


def test_killed_before_any_call(small: Scene, killing: Killer) -> None:
    """Killed before whichever call that changes something, it leaves the old or the new, or what the next restores."""
    seen = []
    for number in range(500):
        small.begin()
        ended = killing.run_until_call(number, signal.SIGKILL, small.folder, *small.replacing)
        seen.append(require_old_or_new(small, ended, killing))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended
    assert number > 40, "too few calls were seen"
    assert seen[0] == ("absent" if small.old is None else "old")
    assert seen[-1] == "new"
    assert "absent" in seen, "no kill fell between the two renames"


def kill_at_moments(scene: Scene, killing: Killer, kind: signal.Signals, count: int) -> set[int]:
    """Kill at `count` moments of the command's whole length, and judge each; return the exit codes."""
    scene.begin()
    seconds = killing.run(*scene.replacing).seconds
    codes = set()
    for moment in moments(seconds, count, seed=kind):
        scene.begin()
        ended = killing.run_until(moment, kind, *scene.replacing)
        require_old_or_new(scene, ended, killing)
        codes.add(ended.code)
    return codes


@pytest.mark.parametrize("was_there", [False, True], ids=["absent", "overwrite"])
@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_some_moments(kind: signal.Signals, was_there: bool, tmp_path: Path, killing: Killer) -> None:
    """Killed at a few moments, it leaves the old or the new, and the next run nothing else."""
    kill_at_moments(make_scene(tmp_path, rows=256, was_there=was_there), killing, kind, 3)


@pytest.mark.sweep
@pytest.mark.parametrize("was_there", [False, True], ids=["absent", "overwrite"])
@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_100_moments(kind: signal.Signals, was_there: bool, tmp_path: Path, killing: Killer) -> None:
    """Killed at 100 moments, most of them while bytes are copied, it leaves the old or the new, and the source."""
    codes = kill_at_moments(make_scene(tmp_path, rows=1024, was_there=was_there), killing, kind, 100)
    assert codes == {0, {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[kind]}
