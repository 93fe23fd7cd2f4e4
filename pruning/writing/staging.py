"""A directory that appears complete or not at all.

It is built beside its destination, under a name of its own, and renamed at the end. One lock a destination makes
its holder the owner of all that an earlier, killed run left behind, which is then put right:

    .NAME.prunecheck-new      being built; removed
    .NAME.prunecheck-old      what was at NAME while it is replaced; put back if NAME is missing
    .NAME.prunecheck-removed  being removed; removed

Where something is replaced, it is absent for a moment between two renames, unless the two exchange their names.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import DestinationError

from .exchange import exchange


@contextmanager
def staged_directory(destination: Path, *, overwrite: bool, sync: bool, in_one_step: bool = False) -> Iterator[Path]:
    """Yield a new directory to write into; at the end of the block it becomes `destination`.

    If the block raises, the new directory is removed and what was at `destination` is as it was. With `sync` the
    renames are on the disk before this returns; the files within are for the block to sync. With `in_one_step` the
    new takes the place of the old in one step, where the file system has one: `destination` is never absent.

    Raises DestinationError if the destination exists (unless `overwrite`, which replaces a directory), is being
    written by someone else, or cannot be written.
    """
    if destination.name in ("", ".."):
        raise DestinationError(f"{destination} is no name for a new directory: name one")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _locked(destination):
        _put_right(destination)
        require_replaceable(destination, overwrite)
        new = _sibling(destination, "new")
        try:
            new.mkdir()
            yield new
            if sync:
                sync_path(new)
            require_replaceable(destination, overwrite)  # again: someone else may have made it meanwhile
            if not (in_one_step and destination.exists() and exchange(new, destination)):
                if destination.exists():
                    destination.rename(_sibling(destination, "old"))
                new.rename(destination)
            if sync:
                sync_path(destination.parent)
        finally:
            _put_right(destination)


def sweep(destination: Path) -> None:
    """Put right what a killed run left beside `destination`, if it left anything.

    Raises DestinationError if it is being written by someone else.
    """
    if any(_sibling(destination, purpose).exists() for purpose in ("new", "old", "removed", "lock")):
        with _locked(destination):
            _put_right(destination)


def sync_path(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)  # fsync is about the file, whichever descriptor it was written by
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sibling(destination: Path, purpose: str) -> Path:
    return destination.with_name(f".{destination.name}.prunecheck-{purpose}")


def require_replaceable(destination: Path, overwrite: bool) -> None:
    """Raise DestinationError if `destination` is not a name for a new directory, nor a directory to replace."""
    if destination.is_symlink():
        raise DestinationError(f"{destination} is a link: name the directory itself")
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination} is a file: name a directory")
    if destination.exists() and not overwrite:
        raise DestinationError(f"{destination} exists: name another directory, or replace it with --overwrite")


def _put_right(destination: Path) -> None:
    """Undo a replacement that did not come to its end, and remove what it left; the caller holds the lock."""
    new, old, removed = (_sibling(destination, purpose) for purpose in ("new", "old", "removed"))
    if old.exists() and new.exists() and destination.exists():
        raise DestinationError(
            f"{destination} was made while it was being replaced, and what was there before is {old}: "
            "move one of the two elsewhere"
        )
    if old.exists():
        # Under another name first: a half-removed directory must never be taken for one to put back.
        old.rename(removed if destination.exists() else destination)
    for leftover in (new, removed):
        if leftover.exists():
            shutil.rmtree(leftover)


@contextmanager
def _locked(destination: Path) -> Iterator[None]:
    path = _sibling(destination, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DestinationError(
                f"{destination} is being written by another prune: wait for it, or name another directory"
            ) from None
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # its holder removed it between our two calls
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
