"""Files of records: JSON that may be anything is read, and a file is the old one or the new one, whatever happens."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import CannotRun


def read_record(path: Path, what: str = "record") -> Any:
    """Return what the JSON file of a report or benchmark holds; raises CannotRun, naming it, for no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise CannotRun(f"{path} is not a {what} of prunecheck: it is nested too deeply") from None
    except ValueError as error:
        raise CannotRun(f"{path} is not a {what} of prunecheck: {error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a report's file, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a report's file; raises CannotRun, in one line, if that cannot be done.

    A file is the old or the new one, whatever happens; what is none, such as a pipe, is written to.
    """
    place = Path(os.path.realpath(path))  # a link stays one, and one to itself leads nowhere
    is_file = place.is_file() or not (place.exists() or place.is_symlink())
    new = place.with_name(f".{place.name}.prunecheck-new") if is_file else place
    try:
        new.write_bytes(content)
        if new != place:
            new.replace(place)
    except OSError as error:
        if new != place:
            with suppress(OSError):  # where nothing could be written, there is nothing
                new.unlink()
        raise CannotRun(f"{path} cannot be written: {error.strerror}") from None


def require_writable(path: Path | None) -> None:
    """Raise CannotRun, before any work, if a file of the report has no directory to be written to."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        why = "it is a directory" if path.is_dir() else f"{path.parent} is no directory"
        raise CannotRun(f"{path} cannot be written: {why}")
