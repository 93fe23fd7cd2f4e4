"""The user's cache: where it lies, and directories in it that are complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def default_cache_directory() -> Path:
    """Return where things are kept: `PRUNECHECK_CACHE`, else `prunecheck` in the user's cache directory."""
    if chosen := os.environ.get("PRUNECHECK_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "prunecheck"


@contextmanager
def complete_or_absent(directory: Path) -> Iterator[Path]:
    """Give an empty directory to fill, which takes the place of `directory` unless the block raises.

    The caller holds the lock of the directory above, so one name is enough: a killed process leaves just one.
    """
    partial = directory.parent / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
