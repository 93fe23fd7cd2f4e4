"""`prune` and `refresh` that are killed, or told to end: the old or the new is there, whole, and the next run works."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pruning import PrunePlan, prune_checkpoint, refresh_checkpoint
from tests.unit.carrying import carry_old_code
from tests.unit.checkpoints import read_files, run_python, write_checkpoint

PLAN = PrunePlan(mlp=(0,))
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}

# Gets the signal when it syncs for the n-th time: in the midst of the shards first, then of the small files.
SIGNALLED = """
import os, signal, sys
from harness.cli.main import main

kind, left, fsync = int(sys.argv[1]), int(sys.argv[2]), os.fsync

def counted(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), kind)
    fsync(descriptor)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
os.fsync = counted
sys.argv = ["prunecheck", *sys.argv[3:]]
main()
"""


def signalled(kind: signal.Signals, number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that gets a signal, and check that it ends by it, in silence."""
    process = run_python(SIGNALLED, int(kind), number, *arguments, check=False)
    assert process.returncode == CODES[kind], process.stderr
    assert "Traceback" not in process.stderr
    return process


@pytest.mark.parametrize("was_there", [True, False], ids=["overwrite", "new"])
@pytest.mark.parametrize("number", [1, 6, 12])
@pytest.mark.parametrize("kind", CODES)
def test_prune(kind: signal.Signals, number: int, was_there: bool, tmp_path: Path) -> None:
    """The destination stays as it was, and the source; the next run writes it, and leaves nothing else."""
    source, out = write_checkpoint(tmp_path / "source", shards=3), tmp_path / "out"
    if was_there:
        prune_checkpoint(source, out, PrunePlan())
    before = read_files(source), read_files(out)
    signalled(kind, number, "prune", source, out, "--mlp", "0", *(["--overwrite"] if was_there else []))
    assert (read_files(source), read_files(out)) == before
    if kind != signal.SIGKILL:
        assert sorted(os.listdir(tmp_path)) == (["out", "source"] if was_there else ["source"])
    prune_checkpoint(source, out, PLAN, overwrite=was_there)
    prune_checkpoint(source, tmp_path / "expected", PLAN)
    assert read_files(out) == read_files(tmp_path / "expected")
    assert sorted(os.listdir(tmp_path)) == ["expected", "out", "source"]


@pytest.mark.parametrize("number", [1, 6])
@pytest.mark.parametrize("kind", CODES)
def test_refresh(kind: signal.Signals, number: int, tmp_path: Path) -> None:
    """The checkpoint stays as it was; the next run refreshes it, and leaves nothing else."""
    prune_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "present", PLAN)
    old = carry_old_code(Path(shutil.copytree(tmp_path / "present", tmp_path / "old")))
    before = read_files(old)
    signalled(kind, number, "refresh", old)
    assert read_files(old) == before
    refresh_checkpoint(old)
    assert read_files(old) == read_files(tmp_path / "present")
    assert sorted(os.listdir(tmp_path)) == ["old", "present", "source"]
