"""Signals that end a command: wherever they arrive, also where Python would ignore what is raised."""

import signal

import pytest

from tests.unit.checkpoints import run_python

# In place of a command: what is killed within one of these places, and then waits.
RUN = """
import os, signal, sys, time, weakref
from harness import cli

# Whoever runs the tests in the background has it ignored, which is left to be so.
signal.signal(signal.SIGINT, signal.default_int_handler)

def killed(*_):
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(1000):
        pass

class Destroyed:
    __del__ = killed

class Referred:
    pass

def app():
    if sys.argv[2] == "destructor":
        Destroyed()
    elif sys.argv[2] == "callback":
        referred = Referred()
        reference = weakref.ref(referred, killed)
        del referred
    elif sys.argv[2] == "what fails to be undone":
        try:
            try:
                killed()
            finally:
                raise ValueError("cannot be undone")
        except ValueError:
            raise cli.CannotRun("does not load") from None
    else:
        killed()
    time.sleep(10)

cli.app = app
cli.main()
"""


@pytest.mark.parametrize("place", ["destructor", "callback", "what fails to be undone", "elsewhere"])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_never_lost(kind: signal.Signals, place: str) -> None:
    """A command ends with the signal's code, in silence, wherever it arrives: destructors are no exception."""
    process = run_python(RUN, int(kind), place, check=False)
    assert (process.returncode, process.stderr) == (128 + kind, "")


def test_other_ignored_exceptions_are_printed() -> None:
    """What else Python ignores is printed as ever."""
    code = "from harness import cli\nclass A:\n    def __del__(self):\n        1 / 0\ncli.app = A\ncli.main()"
    process = run_python(code, check=False)
    assert process.returncode == 0
    assert "ZeroDivisionError" in process.stderr
