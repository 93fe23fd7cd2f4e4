"""Run jobs side by side; their progress is told, and their errors are raised, in the thread that waits for them.

A signal may raise in that thread between any two steps, as Ctrl-C does. The pools of `concurrent.futures`, and
`threading`, have locks that they take in Python code: one that was just taken is then never given back, and whoever
waits for it, waits for ever. So all here is of steps that nothing interrupts, and what is waited for at the end is a
state: a message may be lost.
"""

import os
from _thread import start_new_thread
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Self

Job = Iterator[int]  # does a part of its work at each step, and yields the bytes just done

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8


class Threads:
    """Some threads, which work on the jobs of one caller at a time, and on what may be done behind its back.

    Not a context manager made of a generator: where a signal raises just as the block is left, its end is left to a
    destructor, and at the end of the interpreter that would wait for threads that no longer run.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._living: list[object] = []  # one entry for each thread that has begun to work
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._behind: SimpleQueue[BaseException | None] = SimpleQueue()  # what became of what is done behind
        self._behind_count = 0
        self._stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._end()

    def run(self, jobs: Sequence[Job], advance: Callable[[int], None]) -> None:
        """Run the jobs to their end; `advance` is called, in this thread, with what each yields.

        What a job or `advance` raises is raised here, once nothing runs any more; then nothing more can be begun.
        """
        told: SimpleQueue[int | BaseException | None] = SimpleQueue()

        def run_one(job: Job) -> None:
            try:
                if not self._stop:
                    for count in job:
                        told.put(count)
                        if self._stop:
                            break
                told.put(None)
            except BaseException as error:
                told.put(error)

        try:
            for job in jobs:
                self._begin(partial(run_one, job))
            running = len(jobs)
            while running:
                event = told.get()
                if isinstance(event, BaseException):
                    raise event
                if event is None:
                    running -= 1
                else:
                    advance(event)
        except BaseException:
            self._end()
            raise

    def run_behind(self, work: Callable[[], None], afterwards: Callable[[], None]) -> None:
        """Have `work` done while the caller goes on, and then, or in its place if nothing comes of it, `afterwards`.

        What they raise is raised at the end of the `with`.
        """

        def run() -> None:
            try:
                try:
                    if not self._stop:
                        work()
                finally:
                    afterwards()
                self._behind.put(None)
            except BaseException as error:
                self._behind.put(error)

        self._behind_count += 1
        self._begin(run)

    def _finish(self) -> None:
        """Wait for what is done behind; raises the first error of it."""
        for _ in range(self._behind_count):
            if (error := self._behind.get()) is not None:
                raise error

    def _end(self) -> None:
        """Begin nothing more, and wait for what was begun."""
        self._stop = True
        for _ in range(self._count):
            self._tasks.put(None)
        while self._living:
            self._ended.get()  # one may be lost, but not that of a thread that still lives

    def _begin(self, task: Callable[[], None]) -> None:
        if self._started < self._count:
            start_new_thread(self._work, ())
            self._started += 1
        self._tasks.put(task)

    def _work(self) -> None:
        # What is not there yet when the others are waited for finds that it shall begin nothing more.
        entry = object()
        self._living.append(entry)
        try:
            while (task := self._tasks.get()) is not None:
                task()
        finally:
            self._living.remove(entry)
            self._ended.put(None)


def threads() -> Threads:
    """Return threads, one more than there are processors, since one may be waiting for the disk.

    At the end of their `with` all is done, or, if something was raised, nothing goes on.
    """
    return Threads(min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS) + 1)
