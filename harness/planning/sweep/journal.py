"""What a scan or search has measured so far, on the disk: a killed one goes on where it was, nothing counted twice.

`measurements.jsonl` has a first line that says of what the measurements are, and one for each sweep that is complete.
A line that was being written when the process died lacks its end, and is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harness.errors import CannotRun
from pruning.writing.staging import sync_path

JOURNAL_FILE: Final = "measurements.jsonl"
_NEW_FILE: Final = ".measurements.jsonl.new"


class Journal:
    """The measurements in a directory; see `opened`. `header` is what they are of, and how they were made."""

    def __init__(self, path: Path, header: Mapping[str, Any], entries: list[Any]) -> None:
        self.header = header
        self.entries = entries
        self._path = path

    def add(self, entry: Any) -> None:
        """Write one entry; it is on the disk when this returns. Raises CannotRun if it cannot be."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CannotRun(f"{self._path} cannot be written: {error.strerror}") from None
        self.entries.append(entry)


@contextmanager
def opened(
    directory: Path, subject: Mapping[str, Any], found_out: Mapping[str, Any], *, of: str = "scan"
) -> Iterator[Journal]:
    """Yield the journal in `directory`, which is made if need be, and is this process's own within the `with`.

    `of` is what people call the work whose journal it is: those of another are not added to.
    `subject` are options and digests, by the name that people have for them: measurements of another subject are not
    added to. `found_out` is noted beside it in a new journal; one that is there keeps what it has.

    Raises CannotRun if the directory holds measurements of something else, is in use, has other things in it and no
    journal, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"--out {directory} cannot be made: {error.strerror}") from None
    path = directory / JOURNAL_FILE
    with _locked(directory, of):
        try:
            if not path.exists():
                if others := sorted(entry.name for entry in directory.iterdir() if entry.name != _NEW_FILE):
                    raise CannotRun(f"--out {directory} holds {others[0]!r} and no {of}: name a directory of its own")
                _write_header(directory, {"kind": f"measurements of a {of}", "subject": subject, **found_out})
            header, entries = _read(path, of)
        except OSError as error:
            raise CannotRun(f"--out {directory} cannot be written: {error.strerror}") from None
        if differing := [name for name, value in subject.items() if header["subject"].get(name) != value]:
            raise CannotRun(f"--out {directory} holds a {of} of another {differing[0]}: name another --out")
        yield Journal(path, header, entries)


def _write_header(directory: Path, header: Mapping[str, Any]) -> None:
    new = directory / _NEW_FILE
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(json.dumps(header) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(directory / JOURNAL_FILE)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_path(directory)


def _read(path: Path, of: str) -> tuple[Mapping[str, Any], list[Any]]:
    """Return header and entries; what follows the last complete line is cut off, so that the next begins a line."""
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    try:
        header, *entries = [json.loads(line) for line in complete.splitlines()]
        if header["kind"] != f"measurements of a {of}" or not isinstance(header["subject"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise CannotRun(f"{path} does not hold measurements of a {of}: name another --out") from None
    if len(complete) < len(content):
        os.truncate(path, len(complete))
    return header, entries


@contextmanager
def _locked(directory: Path, of: str) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CannotRun(f"--out {directory} is being written by another {of}: wait for it, or name another") from None
    try:
        yield
    finally:
        os.close(descriptor)
