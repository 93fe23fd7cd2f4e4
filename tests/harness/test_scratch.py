"""Folders for temporary files: removed when they were used, and by the next process where one was killed."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.system import scratch
from harness.system.scratch import LOCK_FILE, PREFIX, remove_abandoned, scratch_folder
from tests.unit.checkpoints import run_python

pytestmark = pytest.mark.newest  # nothing here depends on the version of transformers

LEAVE = """
import os, sys, time
from harness.system.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").mkdir()
    (folder / "weights" / "file").write_text("x")
    {then}
"""
HOLD = LEAVE.format(then='print(folder, flush=True); sys.stdin.read(); print((folder / "weights/file").read_text())')
DIE = LEAVE.format(then="os.kill(os.getpid(), 9)")
# Killed just before its lock file is made, and just after that is removed.
DIE_EMPTY = {
    "made": "import tempfile\nmade = tempfile.mkdtemp\n"
    "tempfile.mkdtemp = lambda prefix: (made(prefix=prefix), os.kill(os.getpid(), 9))" + LEAVE.format(then="pass"),
    "removed": LEAVE.format(then="type(folder).rmdir = lambda _: os.kill(os.getpid(), 9)"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory for temporary files, empty, of this process and those that it starts."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return directory


def abandoned(place: Path, code: str = DIE) -> Path:
    """Return the folder that a killed process left."""
    before = set(place.iterdir())
    assert run_python(code, check=False).returncode == -signal.SIGKILL
    (left,) = set(place.iterdir()) - before
    return left


def test_gone_when_used(place: Path) -> None:
    """A folder is there within the `with`, and gone after it, also where that raises."""
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ZeroDivisionError), scratch_folder():
        raise ZeroDivisionError
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left(place: Path) -> None:
    """What a killed process left is removed by the next, and what a living one uses is not."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as living:
        assert living.stdout is not None
        used = Path(living.stdout.readline().strip())
        left = abandoned(place)
        with scratch_folder() as folder:
            assert not left.exists()
            assert set(place.iterdir()) == {used, folder}
            remove_abandoned()
            assert folder.exists(), "this process's own"
        assert living.communicate("")[0] == "x\n"
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("killed_while", ["made", "removed"])
def test_what_is_left_empty(killed_while: str, place: Path) -> None:
    """A folder that a killed process left without its lock file, which is made first and removed last, is removed."""
    left = abandoned(place, DIE_EMPTY[killed_while])
    assert list(left.iterdir()) == []
    remove_abandoned()
    assert list(place.iterdir()) == []


# Of Python 3.12 on: the process has threads of torch's, of which the fork needs none.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_neither_loses_nor_outlives_the_lock(place: Path) -> None:
    """A worker that ends does not give the lock away, and one that is started anew does not keep it."""
    with scratch_folder() as folder:
        for start in ("fork", "spawn"):
            process = multiprocessing.get_context(start).Process(target=remove_abandoned)
            process.start()
            process.join()
            assert process.exitcode == 0
            assert folder.exists()
        waiting = [sys.executable, "-c", "print('there', flush=True); input()"]
        with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as outliving:
            assert outliving.stdout is not None
            assert outliving.stdout.readline() == b"there\n"  # the kernel closes files after it lets the parent go on
            _forget(folder)
            remove_abandoned()
            assert not folder.exists()
            outliving.communicate(b"\n")


def _forget(folder: Path) -> None:
    """Close this process's descriptor of the lock, as its death would."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(folder / LOCK_FILE):
                descriptor = os.open(os.devnull, os.O_RDONLY)
                os.dup2(descriptor, int(name))  # the number stays taken
                os.close(descriptor)
        except FileNotFoundError:
            pass


def _without_a_lock_file(place: Path, elsewhere: Path) -> None:
    (place / f"{PREFIX}stranger").mkdir()
    (place / f"{PREFIX}stranger" / "file").write_text("x")


def _empty_by_another_name(place: Path, elsewhere: Path) -> None:
    (place / "prunecheck-results").mkdir()


def _a_link_to_an_empty_one(place: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    (place / f"{PREFIX}link").symlink_to(elsewhere)


def _of_another_name(place: Path, elsewhere: Path) -> None:
    abandoned(place).rename(place / "other")


def _a_link(place: Path, elsewhere: Path) -> None:
    abandoned(place).rename(elsewhere)
    (place / f"{PREFIX}link").symlink_to(elsewhere)


def _its_lock_file_is_a_link(place: Path, elsewhere: Path) -> None:
    left = abandoned(place)
    (left / LOCK_FILE).rename(elsewhere)
    (left / LOCK_FILE).symlink_to(elsewhere)


def _its_lock_file_is_a_fifo(place: Path, elsewhere: Path) -> None:
    left = abandoned(place)
    (left / LOCK_FILE).unlink()
    os.mkfifo(left / LOCK_FILE)


def _of_another_user(place: Path, elsewhere: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give files to others")
    os.chown(abandoned(place), 12345, -1)


@pytest.mark.parametrize(
    "made",
    [
        _without_a_lock_file,
        _empty_by_another_name,
        _a_link_to_an_empty_one,
        _of_another_name,
        _a_link,
        _its_lock_file_is_a_link,
        _its_lock_file_is_a_fifo,
        _of_another_user,
    ],
)
def test_strangers_folders_stay(made: Callable[[Path, Path], None], place: Path, tmp_path: Path) -> None:
    """What does not look in every way as we leave it stays as it is, byte for byte; nothing is waited for."""
    made(place, tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder():
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_folder_links_to_stays(place: Path, tmp_path: Path) -> None:
    """Links in a folder that is removed go, and what they lead to stays."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    left = abandoned(place)
    (left / "link").symlink_to(tmp_path / "kept")
    remove_abandoned()
    assert list(place.iterdir()) == []
    assert (tmp_path / "kept" / "file").exists()


def test_removed_before_it_was_locked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another process removes between our making its lock file and locking it is made anew."""
    real, folders = scratch.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not folders:
            folders.append(next(place.iterdir()))
            remove_abandoned()
            assert not folders[0].exists()
        real(descriptor, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", late)
    with scratch_folder() as folder:
        assert folder.exists()
        assert folders[0] != folder


def test_removed_before_it_had_its_lock_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another process removes between our making it and its lock file is made anew."""
    real, folders = tempfile.mkdtemp, []

    def make(prefix: str) -> str:
        folders.append(real(prefix=prefix))
        if len(folders) == 1:
            remove_abandoned()
            assert not Path(folders[0]).exists()
        return folders[-1]

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", make)
    with scratch_folder() as folder:
        assert folder.exists()
        assert folders[0] != str(folder)


def test_without_locks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no locks, a folder is there as long as it is used, and nobody else removes it."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(scratch.fcntl, "flock", refuse)
    with scratch_folder() as folder:
        remove_abandoned()
        assert folder.exists()
    assert list(place.iterdir()) == []
