"""Child processes that end when their parent stops waiting for them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

_SECONDS: Final = 20  # that a child has to undo what it began


@contextmanager
def child(
    command: Sequence[str],
    *,
    stderr: IO[bytes] | int,
    ended_by: signal.Signals,
    environment: Mapping[str, str] | None = None,
    **pipes: Any,
) -> Iterator[subprocess.Popen[str]]:
    """Start a process; one that runs still when the block is left gets the signal, and is killed if it does not end.

    It has a process group of its own: what a terminal sends at Ctrl-C reaches this process alone, and the child is
    told to end once.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | (environment or {}),
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
        **pipes,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _end(process, ended_by)


def _end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
