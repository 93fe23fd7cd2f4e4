"""Loads in fresh processes: seconds, and peak memory as another process sees it.

One process imports the libraries and does nothing else; each load is a fork of it. So every load starts from the same
state, which holds no weight, no thread and no GPU, without paying for the imports each time. The forking process
samples the memory of the one that loads, which is not slowed down by it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final, Literal

import psutil
import torch

from harness.errors import CannotRun, NotChecked
from harness.models.batches import random_ids
from harness.models.forward import uncached_logits, unpadded
from harness.models.modes import LoadingMode
from harness.models.session import Session, first_line
from harness.subject.subject import Subject
from harness.system.crashes import last_line, whole_traceback
from harness.system.libraries import quiet_libraries
from harness.system.scratch import scratch_folder
from harness.system.whose_error import raised_by
from pruning import load_pruned

from .file_cache import drop, warm_up
from .inference import synchronise

Which = Literal["base", "pruned", "load_pruned"]
"""The stock class of the base; the candidate, by its own code if it has any; or by `pruning.load_pruned`."""
FIRST_TOKENS: Final = 8
"""Tokens of the first forward pass, which brings in what a load leaves on the disk."""

_INTERVAL = 0.002  # seconds between two looks at the memory


@dataclass(frozen=True)
class Peak:
    """The most memory that a process had within some time, or beyond what it had before, in bytes.

    `anonymous` is what the process allocated, `file_backed` pages of mapped files, `resident` the most of both at one
    time; `gpu` what torch allocated on all GPUs together.
    """

    resident: int
    anonymous: int
    file_backed: int
    gpu: int = 0

    def joined(self, other: Peak) -> Peak:
        """Return the larger of each."""
        return Peak(
            max(self.resident, other.resident),
            max(self.anonymous, other.anonymous),
            max(self.file_backed, other.file_backed),
        )

    def beyond(self, before: Peak, gpu: int) -> Peak:
        """Return what was added to `before`, and `gpu`."""
        return Peak(
            self.resident - before.resident,
            self.anonymous - before.anonymous,
            self.file_backed - before.file_backed,
            gpu,
        )


@dataclass(frozen=True)
class Load:
    """One load: seconds until `from_pretrained` returned, and until the first forward pass had its logits."""

    bare_seconds: float
    forward_seconds: float
    bare: Peak
    forward: Peak


@dataclass(frozen=True)
class _Order:
    subject: Subject
    mode: LoadingMode
    which: Which
    cold: bool
    threads: int


@dataclass(frozen=True)
class _Crash:
    """What a process that loads says in its last moment, if neither the model nor the machine is the reason."""

    last_line: str
    traceback: str


class FreshLoads:
    """Loads in fresh processes; the one that all are forks of starts with the first, and ends with `close`."""

    def __init__(self) -> None:
        self._started: tuple[Connection, SpawnProcess] | None = None

    def load(self, subject: Subject, mode: LoadingMode, which: Which, *, cold: bool = False) -> Load:
        """Load what Which says; raises CannotRun, in one line, if it cannot be, or not with a cold cache.

        Raises RuntimeError, with the traceback, if the process that loads crashes for a reason of its own.
        """
        connection, _ = self._started = self._started or _start()
        try:
            connection.send(_Order(subject, mode, which, cold, torch.get_num_threads()))
            answer: Load | str | _Crash = connection.recv()
        except (EOFError, OSError):
            raise CannotRun("the process that loads models died") from None
        if isinstance(answer, _Crash):
            raise RuntimeError(f"a load in a process of its own crashed: {answer.last_line}\n{answer.traceback}")
        if isinstance(answer, str):
            raise CannotRun(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._started is not None:
            connection, process = self._started
            connection.close()
            process.join()


def _start() -> tuple[Connection, SpawnProcess]:
    # Not forked itself: this process may have threads, a GPU and models.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))
    process.start()
    theirs.close()
    return ours, process


def _serve(connection: Connection) -> None:
    # Asked by the driver, and not by CUDA itself, whether there is a GPU: a process that has begun to use CUDA cannot
    # be forked (torch, `torch/cuda/__init__.py`, `is_available`).
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    # Else the first load would pay for them.
    import transformers.models.qwen3.modeling_qwen3

    import pruning.remote.modeling_pruned_qwen3

    del transformers, pruning
    # Ctrl-C reaches every process of a terminal; this one ends when the one that started it lets go of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = get_context("fork")
    with quiet_libraries(), suppress(EOFError, OSError):
        while True:
            order: _Order = connection.recv()
            ours, theirs = context.Pipe()
            process = context.Process(target=_load, args=(order, theirs))
            process.start()
            theirs.close()
            connection.send(_watched(ours, process))
            ours.close()
            process.join()


def _watched(connection: Connection, process: Any) -> Load | str | _Crash:
    """Follow a load from outside: sample its memory until it says what it came to."""
    watched = psutil.Process(process.pid)
    try:
        refused: str | _Crash | None = connection.recv()
        if refused is not None:
            return refused
        before = _memory(watched)
        connection.send(None)
        phases: list[tuple[float, Peak]] = []
        highest = before
        while len(phases) < 2:
            arrived = connection.poll(_INTERVAL)
            highest = highest.joined(_memory(watched))
            if arrived:
                answer = connection.recv()
                if isinstance(answer, str | _Crash):
                    return answer
                seconds, gpu = answer
                phases.append((seconds, highest.beyond(before, gpu)))
                connection.send(None)
        (bare_seconds, bare), (forward_seconds, forward) = phases
        return Load(bare_seconds, forward_seconds, bare, forward)
    except (EOFError, OSError, psutil.Error):
        process.join()
        return f"the process that loads died with exit code {process.exitcode}; is there enough memory?"


def _memory(process: psutil.Process) -> Peak:
    memory = process.memory_info()
    shared = getattr(memory, "shared", 0)  # of files and of memory that processes share (Linux, proc(5), statm)
    return Peak(memory.rss, memory.rss - shared, shared)


def _load(order: _Order, connection: Connection) -> None:
    """Load once, and say how long it took after each phase; a string says why the model does not load or run."""
    with scratch_folder() as scratch:
        try:
            _measured_load(order, connection, scratch)
        except (CannotRun, NotChecked) as error:
            connection.send(first_line(error))
        except Exception as error:
            connection.send(_Crash(last_line(error), whole_traceback(error)))


def _measured_load(order: _Order, connection: Connection, scratch: Path) -> None:
    torch.set_num_threads(order.threads)
    stored = order.subject.base if order.which == "base" else order.subject.stored
    assert stored is not None
    session = Session(order.subject, order.mode, scratch)
    ids = random_ids(order.subject.config, 1, FIRST_TOKENS)
    if order.mode.is_quantised:
        import bitsandbytes  # else the load would pay for it

        del bitsandbytes
    _start_gpus()
    warm_up(stored.files)
    if order.cold and (reason := drop(stored.files)):
        connection.send(reason)
        return
    connection.send(None)
    connection.recv()
    started = time.perf_counter()
    try:
        model = _loaded(session, order.which)
    except Exception as error:  # of many kinds: of transformers, of a quantiser, or of the checkpoint's code
        raise CannotRun(first_line(error)) from None
    synchronise()
    _tell(connection, time.perf_counter() - started)
    waited = time.perf_counter()
    connection.recv()
    started += time.perf_counter() - waited
    try:
        uncached_logits(model, unpadded(ids))
    except Exception as error:
        if not raised_by(error, model):
            raise
        raise CannotRun(first_line(error)) from None
    _tell(connection, time.perf_counter() - started)
    connection.recv()


def _loaded(session: Session, which: Which) -> Any:
    if which == "base":
        return session.reference
    if which == "load_pruned":
        return load_pruned(session.subject.root, **session.arguments("candidate"))
    try:
        return session.model
    except NotChecked:
        if session.load_error is None:
            raise
        raise CannotRun(f"the model does not load: {first_line(session.load_error)}") from None


def _tell(connection: Connection, seconds: float) -> None:
    gpus = range(torch.cuda.device_count())
    connection.send((seconds, sum(torch.cuda.max_memory_allocated(index) for index in gpus)))


def _start_gpus() -> None:
    """Make the contexts of all GPUs, which take time and memory whatever is loaded."""
    for index in range(torch.cuda.device_count()):
        torch.zeros(1, device=f"cuda:{index}")
        torch.cuda.reset_peak_memory_stats(index)
    synchronise()
