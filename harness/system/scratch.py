"""Folders for temporary files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder in the directory for temporary files, removed at the end; raises OSError if none can be made.

    What cannot be removed stays, such as what a library still writes to.
    """
    with tempfile.TemporaryDirectory(prefix="prunecheck-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
