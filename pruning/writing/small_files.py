"""Small files, whose lines are there already."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_lines(path: Path, lines: Iterable[str], sync: bool) -> None:
    """Write a file that is not there yet; with `sync` its bytes are on the disk before this returns."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        if sync:
            os.fsync(file.fileno())
