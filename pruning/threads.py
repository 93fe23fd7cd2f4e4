"""Run jobs side by side; their progress is told, and their errors are raised, in the thread that waits for them."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Lock
from typing import TypeVar

Told = TypeVar("Told")

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8


def run_side_by_side(jobs: Iterable[Iterator[Told]], tell: Callable[[Told], object]) -> None:
    """Run the jobs to their end, in one thread more than there are processors, since one may wait for the disk.

    A job does a part of its work at each step; `tell` is called, in the calling thread, with what it yields, while
    the jobs go on. The next job is taken when a thread is free, by one thread at a time. What a job, the making of
    one or `tell` raises is raised here, once no job runs any more.
    """
    threads = min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS) + 1
    left, taking = iter(jobs), Lock()
    told: SimpleQueue[tuple[Told] | BaseException | None] = SimpleQueue()
    stop = Event()

    def take() -> Iterator[Told] | None:
        with taking:
            return next(left, None)

    def work() -> None:
        try:
            while not stop.is_set() and (job := take()) is not None:
                for event in job:
                    told.put((event,))
                    if stop.is_set():
                        break
            told.put(None)
        except BaseException as error:
            told.put(error)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in range(threads):
                pool.submit(work)
            while threads:
                event = told.get()
                if isinstance(event, BaseException):
                    raise event
                if event is None:
                    threads -= 1
                else:
                    tell(*event)
        finally:
            stop.set()
