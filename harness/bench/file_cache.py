"""The system's cache of files: what of a file is in it, and how to get it out."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

# What may stay and still be called cold: a page or two that something else reads meanwhile, of a large file.
_COLD = 0.01


def warm_up(paths: Iterable[Path]) -> None:
    """Read files from end to end, so that they lie in the cache as far as memory allows."""
    buffer = bytearray(1 << 22)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(paths: Iterable[Path]) -> str | None:
    """Drop files from the cache; return why some of them are still there, None if they are gone.

    The kernel keeps pages that are not on the disk yet, which are therefore written first, and pages that a process
    has mapped (Linux, mm/fadvise.c and mm/truncate.c, `invalidate_mapping_pages`).
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system does not let a program drop files from its cache"
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            return f"{path.name} cannot be dropped from the file cache: {error.strerror}"
        finally:
            os.close(file)
        share = cached_share(path)
        if share is None:
            return "this system does not say what is in its file cache"
        if share > _COLD:
            return f"{share:.0%} of {path.name} stayed in the file cache: another process may have it open"
    return None


def cached_share(path: Path) -> float | None:
    """Return which share of a file's pages is in the cache, by mincore(2); None where the system does not tell.

    For a file that the user may not write, Linux since 5.2 says that all of it is (mm/mincore.c, `can_do_mincore`).
    """
    size = path.stat().st_size
    if size == 0:
        return 0.0
    mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if mincore is None:
        return None
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    # A private writable mapping, since ctypes takes the address of nothing else; nothing is written.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), resident)
        del first  # else the mapping could not be closed
    return None if failed else sum(page & 1 for page in bytes(resident)) / pages
