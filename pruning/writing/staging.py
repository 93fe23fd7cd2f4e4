"""A directory that appears complete or not at all.

It is built beside its destination, in a folder `.NAME.prunecheck.*` of its own, and takes the destination's place at
the end. A process that is killed leaves its folder, with

    lock  held while the process lives
    new   what was being built
    old   what was at NAME, where it had to be moved away before `new` could take its place

and the next one to the same destination puts right what it finds.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from pruning.errors import DestinationError

from .exchange import exchange

_LOCK, _NEW, _OLD = "lock", "new", "old"


@contextmanager
def staged_directory(destination: Path, *, overwrite: bool, sync: bool) -> Iterator[Path]:
    """Yield a new directory to write into; at the end of the block it becomes `destination`.

    If the block raises, the new directory is removed and what was at `destination` is as it was. A directory is
    replaced in one step, where the file system has one: `destination` is never absent then. With `sync` this is on the
    disk before this returns; the files within are for the block to sync.

    Raises DestinationError if the destination exists (unless `overwrite`, which replaces a directory), at the start or
    at the end, and OSError if it cannot be written.
    """
    if destination.name in ("", ".."):
        raise DestinationError(f"{destination} is not a name for a new directory: name one")
    destination.parent.mkdir(parents=True, exist_ok=True)
    sweep(destination)
    require_replaceable(destination, overwrite)
    folder = Path(mkdtemp(prefix=_prefix(destination), dir=destination.parent))
    try:
        with FileLock(folder / _LOCK):
            new = folder / _NEW  # its mode is what the umask leaves, which that of the folder is not
            new.mkdir()
            yield new
            if sync:
                sync_path(new)
            require_replaceable(destination, overwrite)  # again: someone else may have made it meanwhile
            if not (overwrite and destination.exists() and exchange(new, destination)):
                if overwrite and destination.exists():
                    destination.rename(folder / _OLD)
                new.rename(destination)
            if sync:
                sync_path(destination.parent)
    finally:
        _clear(folder, destination)


def sweep(destination: Path) -> None:
    """Put right what killed processes left beside `destination`; what a living one has there stays.

    Raises DestinationError where a directory was made in the place of one that is to be put back.
    """
    prefix = _prefix(destination)
    for folder in [each for each in destination.parent.glob(".*") if each.name.startswith(prefix)]:
        with suppress(Timeout), FileLock(folder / _LOCK, timeout=0):
            _clear(folder, destination)


def sync_path(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)  # fsync is about the file, whichever descriptor it was written by
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(destination: Path) -> str:
    return f".{destination.name}.prunecheck."


def require_replaceable(destination: Path, overwrite: bool) -> None:
    """Raise DestinationError for what is not a directory, and, without `overwrite`, for one that exists."""
    if destination.is_symlink():
        raise DestinationError(f"{destination} is a link: name the directory itself")
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination} is a file: name a directory")
    if destination.exists() and not overwrite:
        raise DestinationError(f"{destination} exists: name another directory, or replace it with --overwrite")


def _clear(folder: Path, destination: Path) -> None:
    """Remove a folder; what was moved away for a new directory that did not come is put back before."""
    old = folder / _OLD
    if old.exists() and (folder / _NEW).exists():  # else it was replaced, and may be half removed
        if destination.exists():
            raise DestinationError(
                f"{destination} was made while it was being replaced, and what was there before is {old}: "
                "move one of the two elsewhere"
            )
        old.rename(destination)
    shutil.rmtree(folder, ignore_errors=True)
