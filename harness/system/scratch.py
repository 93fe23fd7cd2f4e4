"""Folders for temporary files: gone when they were used, and what a killed process left is removed by the next one.

Each holds a lock file, locked as long as the process lives that made the folder, or one that it forked. A folder whose
lock nobody holds was left behind. One that is empty, by a name that only these have, was left before it had its lock
file, or is being made: it is removed, and whoever was making it makes another. Any other is a stranger's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "prunecheck-temporary-"
LOCK_FILE: Final = ".prunecheck-lock"
_UNLOCKED_FILE: Final = ".prunecheck-unlocked"  # in its place where there are no locks


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder in the directory for temporary files, removed at the end; first, those left behind are.

    Raises OSError if none can be made.
    """
    remove_abandoned()
    folder, lock = _made()
    try:
        yield folder
    finally:
        with suppress(OSError):  # the next process tries again
            _remove(folder)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove the folders of this user that killed processes left; what cannot be removed stays, without a word."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_if_abandoned(entry)


def _made() -> tuple[Path, int]:
    """Make a folder, and return it and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # not inherited by an exec
        except FileNotFoundError:
            continue  # another process found it empty, and removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: what looks abandoned there need not be
            (folder / LOCK_FILE).rename(folder / _UNLOCKED_FILE)
            return folder, lock
        if _is_at(folder / LOCK_FILE, lock):
            return folder, lock
        os.close(lock)  # another process found it before it was locked, and removed it


def _remove_if_abandoned(entry: os.DirEntry[str]) -> None:
    """Remove a folder of this user that has our lock file, if nobody holds it, or is empty. Follows no link."""
    if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    try:
        lock = os.open(Path(entry.path, LOCK_FILE), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        os.rmdir(entry.path)  # raises OSError where anything is in it
        return
    try:
        if stat.S_ISREG(os.fstat(lock).st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError where somebody holds it
            _remove(Path(entry.path))
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock file last: a process that is killed meanwhile leaves what the next one removes."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != LOCK_FILE:
                os.unlink(entry.path)
        (folder / LOCK_FILE).unlink(missing_ok=True)
        folder.rmdir()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
