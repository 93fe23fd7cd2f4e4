"""Run jobs side by side; their progress is told, and their errors are raised, in the thread that waits for them.

A signal may raise in that thread between any two steps, as Ctrl-C does. The pools of `concurrent.futures`, and
`threading`, have locks that they take in Python code: one that was just taken is then never given back, and whoever
waits for it, waits for ever. So all here is of steps that nothing interrupts, and what is waited for at the end is a
state: a message may be lost.
"""

import os
from _thread import start_new_thread
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue

Job = Iterator[int]  # does a part of its work at each step, and yields the bytes just done

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8

_SECONDS = 0.1  # after which a thread's end is seen of which the message was lost


class Threads:
    """Some threads, which work on the jobs of one caller at a time, and on what may be done behind its back."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._living: list[object] = []  # one entry for each thread that has begun to work
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._behind: SimpleQueue[BaseException | None] = SimpleQueue()  # what became of what is done behind
        self._behind_count = 0
        self._stop = False

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
            self.end()
            raise

    def run_behind(self, work: Callable[[], None], afterwards: Callable[[], None]) -> None:
        """Have `work` done while the caller goes on, and then, or in its place if nothing comes of it, `afterwards`.

        What they raise is raised at the end of the block of `threads`.
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

    def finish(self) -> None:
        """Wait for what is done behind; raises the first error of it."""
        for _ in range(self._behind_count):
            if (error := self._behind.get()) is not None:
                raise error

    def end(self) -> None:
        """Begin nothing more, and wait for what was begun, also if a signal raises meanwhile."""
        self._stop = True
        try:
            self._wait_for_threads()
        finally:
            self._wait_for_threads()  # where it was left early, since what is written to is about to be closed

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

    def _wait_for_threads(self) -> None:
        for _ in range(self._count):
            self._tasks.put(None)
        while self._living:
            with suppress(Empty):
                self._ended.get(timeout=_SECONDS)


@contextmanager
def threads() -> Iterator[Threads]:
    """Yield threads, one more than there are processors, since one may be waiting for the disk.

    At the end of the block all is done, or, if something was raised, nothing goes on.
    """
    processors = min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS)
    running = Threads(processors + 1)
    try:
        yield running
        running.finish()
    finally:
        running.end()
