"""Judgements on the disk, so that an interrupted search goes on where it was.

A judgement is found again only for the same files of checkpoint and base, by their sizes and times, the same options,
the same judge, and the same packages in the running environment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

import harness
import pruning
from harness.errors import CannotRun
from harness.report.files import write_text
from harness.subject.untrusted_files import read_json_or_none
from harness.system.cache_directory import default_cache_directory

from .judging import FOLDER, Judge, Listener, Request
from .overlays import environment_digest
from .set_record import SetRecord

_JUDGED: Final = "judged"


def keeping(judge: Judge, request: Request) -> Judge:
    """Return a judge that keeps each report of another, of this request, and asks it only for what is not kept."""
    folder = default_cache_directory() / FOLDER / _JUDGED / _digest(_subject(request))[:32]

    def judge_once(packages: str, request: Request, listener: Listener) -> SetRecord:
        path = folder / f"{_digest([packages])[:32]}.json"
        try:
            return msgspec.convert(read_json_or_none(path), SetRecord)
        except ValueError:  # there is none
            record = judge(packages, request, listener)
        if record.report is not None:  # else the reason may be gone the next time
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CannotRun(f"{folder} cannot be made: {error.strerror}; set PRUNECHECK_CACHE to another") from None
            write_text(path, json.dumps(record.to_dict()) + "\n")
        return record

    return judge_once


def _subject(request: Request) -> Iterator[str]:
    yield json.dumps(request.to_dict(), sort_keys=True)
    yield environment_digest()
    for place in (request.checkpoint, request.base, *harness.__path__, *pruning.__path__):
        if place is not None:
            yield from _files(Path(place))


def _files(root: Path) -> Iterator[str]:
    """Yield path, size and time of the change of each file; what is compiled of Python files is not the judge."""
    yield str(root.absolute())
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            status = path.stat()
            yield f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}"


def _digest(texts: Iterator[str] | list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
