import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.threads import threads
from tests.unit.checkpoints import run_python

# Raises at the first step of the main thread within the block of `threads`, then at the second, ... until there are no
# more; a step is an instruction of Python's own, in `pruning/threads.py`. What is done goes well, or fails by itself.
INTERRUPT = """
import sys, time
from pruning.threads import threads

class Interrupt(BaseException):
    pass

def interrupted(number, advance):
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
        with threads() as running:
            for _ in range(2):
                running.run([job(), job()], advance)
                running.run_behind(lambda: time.sleep(0.002), lambda: None)
    except (Interrupt, ZeroDivisionError) as error:
        assert not working, f"after step {number} something goes on"
        raised.append(error)  # and with it all that its traceback holds, until the interpreter ends
    finally:
        sys.settrace(None)
    return left[0] < 0

raised, steps = [], 0
for advance in (lambda count: None, lambda count: 1 / 0):
    number = 0
    while interrupted(number, advance):
        number += 1
    steps += number
print(steps)
"""


@given(st.lists(st.lists(st.integers(0, 100)), max_size=20))
def test_progress_is_told_in_the_calling_thread(counts):
    """Each count that a job yields arrives once, in the thread that waits, in the order of its job."""
    told = []
    with threads() as running:
        jobs = [iter([(number, count) for count in job]) for number, job in enumerate(counts)]
        running.run(jobs, lambda event: told.append((threading.get_ident(), *event)))
    assert {ident for ident, _, _ in told} <= {threading.get_ident()}
    assert [[count for _, of, count in told if of == number] for number in range(len(counts))] == counts


@pytest.mark.parametrize("where", ["job", "advance"])
@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_ends_all_jobs(where, exception):
    """An error of one job, or of the progress, is raised where the jobs are waited for, once none runs any more."""
    started, steps = threading.Event(), []

    def endless():
        while True:
            steps.append(started.set())
            time.sleep(0.001)  # else the queue fills up faster than it is read
            yield 0

    def failing():
        started.wait()
        yield 1
        if where == "job":
            raise exception("planted")
        yield from endless()

    def advance(count):
        if where == "advance" and count == 1:
            raise exception("planted")

    def run():
        with threads() as running:
            running.run([endless(), failing(), *(endless() for _ in range(20))], advance)

    with pytest.raises(exception, match="planted"):
        run()
    taken = len(steps)
    time.sleep(0.02)  # several steps of a job that still ran
    assert len(steps) == taken > 0


def test_what_is_done_behind_is_done_at_the_end():
    """The block does not end before what is done behind, and each is followed by what comes afterwards."""
    done = []
    with threads() as running:
        for number in range(20):
            running.run_behind(lambda number=number: done.append(number), lambda: done.append("afterwards"))
        running.run([iter([1, 2])], lambda count: None)
    assert sorted(event for event in done if event != "afterwards") == list(range(20))
    assert done.count("afterwards") == 20


def test_an_error_behind_is_raised_at_the_end():
    """What fails behind is raised at the end of the block; what was not begun is left out, all is cleaned up."""
    begun, cleaned = [], []

    def work():
        begun.append(threading.get_ident())
        time.sleep(0.01)  # so that most are not begun when the first fails
        raise OSError("planted")

    def run():
        with threads() as running:
            for _ in range(100):
                running.run_behind(work, lambda: cleaned.append(True))

    with pytest.raises(OSError, match="planted"):
        run()
    assert 1 <= len(begun) < 100
    assert len(cleaned) == 100


def test_an_error_of_the_block_leaves_nothing_running():
    """An error within the block is raised after what runs behind came to its end, and is not covered by it."""
    started, done = threading.Event(), []

    def work():
        started.set()
        time.sleep(0.05)  # longer than the block takes to fail
        done.append(True)
        raise OSError("later")

    def run():
        with threads() as running:
            running.run_behind(work, lambda: done.append("afterwards"))
            started.wait()
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        run()
    assert done == [True, "afterwards"]


def test_a_signal_at_any_step_ends_all(capfd):
    """What a signal raises, at whichever step, is raised, nothing goes on, and nothing is waited for for ever."""
    run_python(INTERRUPT)
    assert int(capfd.readouterr().out) > 100
