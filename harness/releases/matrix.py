"""The same judgement under several sets of packages, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import CannotRun
from harness.subject.untrusted_files import checkpoint_directory

from .judging import Judge, Listener, Request, judge_set
from .record import Matrix
from .set_record import SetRecord

Progress = Callable[[float, int, str], None]
"""Called with how many sets are done, a part of one included, how many there are, and what is being done."""


def run_matrix(
    checkpoint: str | Path,
    *,
    sets: Sequence[str],
    base: str | Path | None = None,
    judge: Judge = judge_set,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
    **options: Any,
) -> Matrix:
    """Judge a checkpoint under each set of packages, each in a process of its own.

    Args:
        checkpoint: The directory of the pruned checkpoint.
        sets: Each the requirements of one set, separated by spaces: `accelerate==1.14.0 transformers==5.20.2`.
        base: The unpruned checkpoint: a directory, or a hub id.
        judge: What judges under one set.
        progress: See Progress.
        warn: Called with why a set could not be judged, and with what a judgement says should be known.
        options: Those of `check_checkpoint` that `Request` has: plan, device_map, dtype, quantisation, ...

    Raises:
        CannotRun: There is no such checkpoint, or no set. What is wrong with a set is in its record.
    """
    request = request_of(checkpoint, base, options)
    if not (sets := tuple(dict.fromkeys(" ".join(text.split()) for text in sets))):
        raise CannotRun("no set of packages: name one with --with, for one --with transformers==5.23.0")
    warn = once(warn)
    records = []
    for number, packages in enumerate(sets):
        step = step_of(progress, packages, number, len(sets))
        records.append(judged(judge, packages, request, Listener(step, warn)))
    return Matrix(request.checkpoint, request.base, tuple(records))


def request_of(checkpoint: str | Path, base: str | Path | None, options: dict[str, Any]) -> Request:
    """Return what is judged; raises CannotRun for no such checkpoint."""
    return Request(str(checkpoint_directory(checkpoint)), None if base is None else str(base), **options)


def judged(judge: Judge, packages: str, request: Request, listener: Listener) -> SetRecord:
    """Judge under one set, and tell why that could not be done, if so."""
    record = judge(packages, request, listener)
    if record.reason is not None:
        listener.warn(f"{packages}: {record.reason}")
    return record


def step_of(progress: Progress | None, packages: str, done: int, total: int) -> Callable[[float, str], None]:
    """Return what tells how far a set is; `done` sets are behind it."""

    def step(share: float, text: str) -> None:
        if progress is not None:
            progress(done + share, total, f"{packages}: {text}")

    return step


def once(warn: Callable[[str], None] | None) -> Callable[[str], None]:
    """Return what tells each line once: several judgements of one checkpoint say the same of it."""
    said: set[str] = set()

    def tell(text: str) -> None:
        if warn is not None and text not in said:
            said.add(text)
            warn(text)

    return tell
