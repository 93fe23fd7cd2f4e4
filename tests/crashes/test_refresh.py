"""`refresh` killed before any call, and at any moment: the checkpoint is there, the old or the new, and whole."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pruning import PrunePlan, prune_checkpoint, refresh_checkpoint
from pruning.writing.exchange import exchange
from tests.crashes.killing import Ended, Killer, moments
from tests.crashes.test_prune import SIGNALS, Digests, digests
from tests.unit.carrying import carry_old_code
from tests.unit.checkpoints import write_checkpoint


@dataclass(frozen=True)
class Scene:
    """A checkpoint `ours` of 0.1.0 in a folder of its own, a copy of it elsewhere, and its files before and after."""

    folder: Path
    copy: Path
    old: Digests
    new: Digests

    @property
    def command(self) -> list[object]:
        """The command line."""
        return ["refresh", self.folder / "ours"]

    def begin(self) -> None:
        """Make the checkpoint what it was before."""
        ours = self.folder / "ours"
        if ours.exists() and digests(ours) != self.old:
            shutil.rmtree(ours)
        if not ours.exists():
            shutil.copytree(self.copy, ours)

    def require_old_or_new(self, ended: Ended, killing: Killer) -> str:
        """Judge what a killed command left, and what the next run makes of it; return which of both was there."""
        assert "Traceback" not in ended.output, ended
        found = digests(self.folder / "ours")
        assert found in (self.old, self.new), "a checkpoint that is neither the old nor the new"
        next_run = killing.run(*self.command)
        assert next_run.code == 0, next_run
        assert digests(self.folder / "ours") == self.new
        assert os.listdir(self.folder) == ["ours"]
        return "old" if found == self.old else "new"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A small checkpoint, in memory where there is such a place."""
    work = tmp_path_factory.mktemp("refreshed")
    source = write_checkpoint(work / "source", shards=2)
    (source / "tokenizer.json").write_text(json.dumps({}))
    prune_checkpoint(source, work / "copy", PrunePlan(self_attn=(0,), mlp=(1,)), sync=False)
    copy = carry_old_code(work / "copy")
    new = shutil.copytree(copy, work / "new")
    refresh_checkpoint(new, sync=False)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else work) as folder:
        for name in ("a", "b"):
            (Path(folder) / name).mkdir()
        if not exchange(Path(folder) / "a", Path(folder) / "b"):
            pytest.skip("this file system cannot exchange two names")
        for name in ("a", "b"):
            (Path(folder) / name).rmdir()
        yield Scene(Path(folder), copy, digests(copy), digests(new))


def test_killed_before_any_call(scene: Scene, killing: Killer) -> None:
    """Killed before whichever call that changes something, it leaves the old or the new; the checkpoint never lacks."""
    seen = []
    for number in range(500):
        scene.begin()
        ended = killing.run_until_call(number, signal.SIGKILL, scene.folder, *scene.command)
        seen.append(scene.require_old_or_new(ended, killing))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended
    assert number > 40, "too few calls were seen"
    assert seen == sorted(seen, reverse=True), "it was the new one, and then the old one again"
    assert (seen[0], seen[-2]) == ("old", "new"), "no kill fell behind the exchange"


@pytest.mark.parametrize("kind", SIGNALS)
def test_killed_at_some_moments(kind: signal.Signals, scene: Scene, killing: Killer) -> None:
    """Killed at a few moments, it leaves the old or the new."""
    scene.begin()
    seconds = killing.run(*scene.command).seconds
    for moment in moments(seconds, 5, seed=kind):
        scene.begin()
        scene.require_old_or_new(killing.run_until(moment, kind, *scene.command), killing)
