import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.writing.threads import run_side_by_side


@given(st.lists(st.lists(st.integers(0, 100)), max_size=20))
def test_progress_is_told_in_the_calling_thread(counts):
    """Each count that a job yields arrives once, in the thread that waits."""
    told = []
    run_side_by_side(map(iter, counts), lambda count: told.append((threading.get_ident(), count)))
    assert {ident for ident, _ in told} <= {threading.get_ident()}
    assert sorted(count for _, count in told) == sorted(count for job in counts for count in job)


@pytest.mark.parametrize("where", ["job", "advance", "the making of a job"])
@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_ends_all_jobs(where, exception):
    """An error of a job, of its making or of the progress is raised where jobs are waited for, once none runs."""
    started, steps, begun, ended = threading.Event(), [], [], []

    def endless():
        begun.append(True)
        try:
            while True:
                steps.append(started.set())
                time.sleep(0.001)  # else the queue fills up faster than it is read
                yield 0
        finally:
            ended.append(True)

    def failing():
        started.wait()
        yield 1
        if where == "job":
            raise exception("planted")
        yield from endless()

    def jobs():
        yield endless()
        if where == "the making of a job":
            started.wait()
            raise exception("planted")
        yield failing()
        yield endless()

    def advance(count):
        if where == "advance" and count == 1:
            raise exception("planted")

    with pytest.raises(exception, match="planted"):
        run_side_by_side(jobs(), advance)
    taken = len(steps)
    time.sleep(0.02)  # several steps of a job that still ran
    assert len(steps) == taken > 0
    assert len(ended) == len(begun), "a job that was stopped still holds what it had open"


def test_a_job_goes_on_while_it_is_told():
    """What takes long in the calling thread, such as waiting for the disk, holds up no job."""
    further = threading.Event()

    def job():
        yield 1
        further.set()
        yield 2

    told = []
    run_side_by_side([job()], lambda count: told.append((count, further.wait(10))))
    assert told == [(1, True), (2, True)]
