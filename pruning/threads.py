"""Run jobs side by side; their progress is told, and their errors are raised, in the thread that waits for them."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event

Job = Iterator[int]  # does a part of its work at each step, and yields the bytes just done

# As many keep any disk busy; more would only take memory.
_MOST_PROCESSORS = 8


class Threads:
    """A pool of threads that work on the jobs of one caller at a time, and on what may be done behind its back."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._behind: list[Future[None]] = []

    def run(self, jobs: Sequence[Job], advance: Callable[[int], None]) -> None:
        """Run the jobs to their end; `advance` is called, in this thread, with what each yields.

        What a job or `advance` raises is raised here, once no job runs any more.
        """
        told: SimpleQueue[int | BaseException | None] = SimpleQueue()
        stop = Event()

        def run_one(job: Job) -> None:
            try:
                for count in job:
                    told.put(count)
                    if stop.is_set():
                        break
                told.put(None)
            except BaseException as error:
                told.put(error)

        futures: list[Future[None]] = []
        try:
            futures.extend(self._pool.submit(run_one, job) for job in jobs)
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
            stop.set()
            _end(futures)
            raise

    def run_behind(self, work: Callable[[], None], afterwards: Callable[[], None]) -> None:
        """Have `work` done while the caller goes on, and then, or in its place if nothing comes of it, `afterwards`.

        What `work` raises is raised at the end of the block of `threads`.
        """
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: afterwards())
        self._behind.append(future)

    def finish(self) -> None:
        """Wait for what is done behind; raises the first error of it."""
        for future in wait(self._behind, return_when=FIRST_EXCEPTION).done:
            future.result()

    def end(self) -> None:
        """Begin nothing more, and wait for what was begun."""
        _end(self._behind)


@contextmanager
def threads() -> Iterator[Threads]:
    """Yield threads, one more than there are processors, since one may be waiting for the disk.

    At the end of the block all is done, or, if something was raised, nothing goes on.
    """
    processors = min(len(os.sched_getaffinity(0)), _MOST_PROCESSORS)
    with ThreadPoolExecutor(processors + 1) as pool:
        running = Threads(pool)
        try:
            yield running
            running.finish()
        finally:
            running.end()


def _end(futures: Iterable[Future[None]]) -> None:
    futures = list(futures)
    for future in futures:
        future.cancel()
    wait(futures)
