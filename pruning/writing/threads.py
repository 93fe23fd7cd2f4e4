"""Run jobs side by side, with their progress told in the thread that waits for them."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8


def run_side_by_side(jobs: Iterable[Iterator[int]], advance: Callable[[int], object]) -> None:
    """Run the jobs to their end, in one thread more than there are processors, since one may wait for the disk.

    A job does a part of its work at each step; `advance` is called, in the calling thread, with what it yields, while
    the jobs go on. What a job or `advance` raises is raised here, once no job runs any more.
    """
    done: SimpleQueue[int | None] = SimpleQueue()  # None for each job that has ended
    stop = Event()

    def run(job: Iterator[int]) -> None:
        try:
            for count in job if not stop.is_set() else ():
                done.put(count)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()
            raise
        finally:
            done.put(None)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS) + 1) as pool:
        try:
            running = [pool.submit(run, job) for job in jobs]
            left = len(running)
            while left:
                if (count := done.get()) is None:
                    left -= 1
                else:
                    advance(count)
            for each in running:
                each.result()
        finally:
            stop.set()  # where it is left early: the pool waits for what runs
