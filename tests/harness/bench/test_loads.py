"""Loads in fresh processes: what they cost, and what becomes of those that fail."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness import CannotRun
from harness.bench.fresh_process import FreshLoads
from harness.faults.planting.code_edits import edit_foreign
from harness.models.modes import LoadingMode
from harness.subject.subject import Subject, read_subject
from harness.tiny import TinySpec

pytestmark = pytest.mark.newest

PLAIN = LoadingMode("plain", "float32")
_IMPORT = "from torch import nn\n"


@pytest.fixture(scope="module")
def loads() -> Iterator[FreshLoads]:
    """One process that all loads are forks of."""
    with closing(FreshLoads()) as started:
        yield started


@pytest.fixture(scope="module")
def subject(tiny_checkpoints: Callable[..., tuple[Path, Path]]) -> Subject:
    """A checkpoint of some megabytes, whose weights are more than a few pages."""
    base, pruned = tiny_checkpoints(TinySpec(vocabulary_size=64_000))
    return read_subject(pruned, base)


def test_a_load(loads: FreshLoads, subject: Subject) -> None:
    """The first pass comes after the load, and with it the weights are in memory, wherever the kernel counts them."""
    load = loads.load(subject, PLAIN, "pruned")
    assert 0 < load.bare_seconds < load.forward_seconds
    assert load.forward.resident >= subject.stored.bytes * 0.9
    assert load.forward.anonymous >= load.bare.anonymous >= 0
    assert load.forward.gpu == 0


def test_a_converting_load(loads: FreshLoads, subject: Subject) -> None:
    """Weights in another dtype than the file's are memory of the process's own, half as many bytes in bfloat16."""
    load = loads.load(subject, LoadingMode("plain", "bfloat16"), "base")
    assert subject.base is not None
    assert load.bare.anonymous >= subject.base.bytes // 2 * 0.9


def planted(subject: Subject, directory: Path, code: str) -> Subject:
    """The checkpoint with this line in code of its own, which may run."""
    edit_foreign((_IMPORT, f"import os\n{code}\n{_IMPORT}"))(subject.root, directory)
    assert subject.base is not None
    return read_subject(directory, subject.base.root, trust_remote_code=True)


def test_code_that_raises(loads: FreshLoads, subject: Subject, tmp_path: Path) -> None:
    """A candidate that does not load is told of with its own words, and the next load is none the worse."""
    broken = planted(subject, tmp_path / "broken", 'raise RuntimeError("no\\nluck")')
    with pytest.raises(CannotRun, match=r"^the model does not load: no$"):
        loads.load(broken, PLAIN, "pruned")
    assert loads.load(broken, PLAIN, "base").bare_seconds > 0


def test_a_crash_of_ours(loads: FreshLoads, subject: Subject) -> None:
    """What neither the model nor the machine is the reason of is a crash, with its traceback, and no skipped mode."""
    broken = replace(subject, stored=None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"a load in a process of its own crashed: AssertionError\nTraceback"):
        loads.load(broken, PLAIN, "pruned")
    assert loads.load(subject, PLAIN, "base").bare_seconds > 0


def test_a_process_that_dies(loads: FreshLoads, subject: Subject, tmp_path: Path) -> None:
    """A process that is gone, as the kernel ends what takes too much memory, is told of with its exit code."""
    deadly = planted(subject, tmp_path / "deadly", "os.kill(os.getpid(), 9)")
    with pytest.raises(CannotRun, match=r"^the process that loads died with exit code -9; is there enough memory\?$"):
        loads.load(deadly, PLAIN, "pruned")
    assert loads.load(deadly, PLAIN, "base").bare_seconds > 0


def test_fresh(loads: FreshLoads, subject: Subject, tmp_path: Path) -> None:
    """No load runs in the process of another, nor in this one."""
    path = tmp_path / "processes"
    observed = planted(subject, tmp_path / "observed", f'open({str(path)!r}, "a").write(f"{{os.getpid()}} ")')
    for _ in range(2):
        loads.load(observed, PLAIN, "pruned")
    processes = path.read_text().split()
    assert len({*processes, str(os.getpid())}) == 3
