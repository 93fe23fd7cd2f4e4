"""Run jobs side by side; their progress is told, and their errors are raised, in the thread that waits for them.

A signal may raise in that thread between any two steps, as Ctrl-C does. The pools of `concurrent.futures`, and
`threading`, have locks that they take in Python code: one that was just taken is then never given back, and whoever
waits for it, waits for ever. So in that thread all here is of steps that nothing interrupts, and what is waited for at
the end is a state: a message may be lost.
"""

import os
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

Told = TypeVar("Told")

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8


def run_side_by_side(jobs: Iterable[Iterator[Told]], tell: Callable[[Told], object]) -> None:
    """Run the jobs to their end, in one thread more than there are processors, since one may wait for the disk.

    A job does a part of its work at each step; `tell` is called, in the calling thread, with what it yields, while
    the jobs go on. The next job is taken when a thread is free, by one thread at a time. What a job, the making of
    one or `tell` raises is raised here, once no job runs any more.
    """
    threads = _Threads(jobs)
    try:
        # No loop in here: what is raised where a `while` jumps back, Python 3.12 and 3.13 raise past the `finally`.
        try:
            threads.run(min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS) + 1, tell)
        finally:
            threads.end()
    finally:
        threads.end()  # where a signal left it early, since what is written to is about to be removed


class _Threads(Generic[Told]):
    """Threads that share some jobs: `_told` gets what the jobs yield, and of each thread None or its error."""

    def __init__(self, jobs: Iterable[Iterator[Told]]) -> None:
        self._told: SimpleQueue[tuple[Told] | BaseException | None] = SimpleQueue()
        self._jobs, self._taking = iter(jobs), Lock()  # which the thread that waits never takes
        self._living: list[object] = []  # one entry for each thread that has begun to work
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._stop = False

    def run(self, count: int, tell: Callable[[Told], object]) -> None:
        """Start so many threads, and tell what they yield until each has ended; raise the first error."""
        for _ in range(count):
            start_new_thread(self._work, ())
        while count:
            event = self._told.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                count -= 1
            else:
                tell(*event)

    def end(self) -> None:
        """Have no thread begin anything more, and wait until none works."""
        self._stop = True
        while self._living:
            self._ended.get()  # one may be lost, but not that of a thread that still lives

    def _work(self) -> None:
        """Run jobs in this thread until none is left, or all shall end."""
        # What is not there yet when the others are waited for finds that it shall begin nothing more.
        entry = object()
        self._living.append(entry)
        try:
            self._told.put(self._run_jobs())
        finally:
            self._living.remove(entry)
            self._ended.put(None)

    def _run_jobs(self) -> BaseException | None:
        try:
            while not self._stop and (job := self._take()) is not None:
                for event in job:
                    self._told.put((event,))
                    if self._stop:
                        break
        except BaseException as error:
            return error
        return None

    def _take(self) -> Iterator[Told] | None:
        with self._taking:
            return next(self._jobs, None)
