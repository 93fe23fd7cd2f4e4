import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.writing.threads import run_side_by_side
from tests.unit.checkpoints import run_python

# Raises at the first step of the main thread in `run_side_by_side`, then at the second, ... until there are no more; a
# step is an instruction of Python's own, there or in what it calls. What is done goes well, or fails by itself.
INTERRUPT = """
import sys, time
from pruning.writing.threads import run_side_by_side

class Interrupt(BaseException):
    pass

def interrupted(number, tell):
    working, left = [], [number]

    def job():
        for _ in range(2):
            working.append(True)
            time.sleep(0.001)
            working.pop()
            yield 1

    def step(frame, event, _):
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_filename != "<string>":
            left[0] -= 1
            if left[0] < 0:
                sys.settrace(None)
                raise Interrupt
        return step

    sys.settrace(step)
    try:
        run_side_by_side([job() for _ in range(6)], tell)
    except (Interrupt, ZeroDivisionError) as error:
        assert not working, f"after step {number} something goes on"
        raised.append(error)  # and with it all that its traceback holds, until the interpreter ends
    finally:
        sys.settrace(None)
    return left[0] < 0

raised, steps = [], 0
for tell in (lambda count: None, lambda count: 1 / 0):
    number = 0
    while interrupted(number, tell):
        number += 1
    steps += number
print(steps)
"""


@given(st.lists(st.lists(st.integers(0, 100)), max_size=20))
def test_progress_is_told_in_the_calling_thread(counts):
    """Each count that a job yields arrives once, in the thread that waits, in the order of its job."""
    told = []
    jobs = [iter([(number, count) for count in job]) for number, job in enumerate(counts)]
    run_side_by_side(jobs, lambda event: told.append((threading.get_ident(), *event)))
    assert {ident for ident, _, _ in told} <= {threading.get_ident()}
    assert [[count for _, of, count in told if of == number] for number in range(len(counts))] == counts


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
        while True:
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


def test_a_job_is_made_when_a_thread_is_free():
    """However many jobs there are, no more of them are there at a time than threads."""
    made, done = [], []

    def job():
        yield 1
        done.append(True)

    def jobs():
        for _ in range(1000):
            made.append(len(made) - len(done))
            time.sleep(0)  # another thread may run, and ask for a job, too
            yield job()

    told = []
    run_side_by_side(jobs(), told.append)
    assert len(told) == len(done) == 1000
    assert max(made) <= len(os.sched_getaffinity(0))  # and the one that is being made


def test_a_job_goes_on_while_it_is_told():
    """What takes long in the calling thread, such as waiting for the disk, holds up no job."""
    further = threading.Event()

    def job():
        yield "first"
        further.set()
        yield "second"

    told = []
    run_side_by_side([job()], lambda event: told.append((event, further.wait(10))))
    assert told == [("first", True), ("second", True)]


def test_a_signal_at_any_step_ends_all(capfd):
    """What a signal raises, at whichever step, is raised, nothing goes on, and nothing is waited for for ever."""
    run_python(INTERRUPT)
    assert int(capfd.readouterr().out) > 100
