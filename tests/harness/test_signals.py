"""Signals that end a command: wherever they arrive, also where Python would ignore what is raised."""

import signal
import sys
from typing import Any

import pytest

from harness.system import signals
from tests.unit.checkpoints import run_python

pytestmark = pytest.mark.newest  # nothing here depends on the version of transformers

# In place of a command: what is killed within one of these places, and then waits.
RUN = """
import os, signal, sys, threading, time, weakref
from concurrent.futures import Future
from harness.cli import main as cli
from harness.system import signals

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
    if sys.argv[2].startswith("destructor"):
        if sys.argv[2] == "destructor, and before that is over":
            signals._SECONDS = 0
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
    elif sys.argv[2] == "waits":
        signals._MOST_TIMES = 10**9
        threading.Timer(0.05, killed).start()
        Future().result()
    elif sys.argv[2] == "waits again and again":
        threading.Timer(0.05, killed).start()
        while True:
            threading.Event().wait(0.001)
    else:
        killed()
    time.sleep(10)

cli.app = app
cli.main()
"""


# In place of a command: one that takes a lock and gives it back until the signal comes, again and again.
LOCK = """
import os, signal, sys, threading, time
from _thread import start_new_thread
from harness.system.signals import Ended, exit_at_signals

signal.signal(signal.SIGINT, signal.default_int_handler)
exit_at_signals()

def kill():
    time.sleep(0.002)
    os.kill(os.getpid(), int(sys.argv[1]))

taken = 0
for _ in range(20):
    condition = threading.Condition(threading.Lock())
    try:
        start_new_thread(kill, ())
        while True:
            with condition:
                pass
    except Ended:
        taken += not condition.acquire(blocking=False)
print(taken)
"""

PLACES = [
    "destructor",
    "destructor, and before that is over",
    "callback",
    "what fails to be undone",
    "waits",
    "waits again and again",
    "elsewhere",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_never_lost(kind: signal.Signals, place: str) -> None:
    """A command ends with the signal's code, in silence, wherever it arrives: destructors are no exception."""
    process = run_python(RUN, int(kind), place, check=False)
    assert (process.returncode, process.stderr) == (128 + kind, "")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_no_lock_stays_taken(kind: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    """Where a lock is being taken or given back, a signal waits until that is done."""
    run_python(LOCK, int(kind))
    assert capfd.readouterr().out == "0\n"


@pytest.mark.parametrize(
    "module", ["threading", "concurrent.futures._base", "logging", "harness.system.signals", "elsewhere"]
)
def test_which_places_are_left_alone(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is sent again where locks are taken, and where it would be lost; it ends the command elsewhere."""
    again: list[int] = []
    monkeypatch.setattr(signals, "_send_again", lambda number: not again.append(number))
    names: dict[str, Any] = {"__name__": module, "sys": sys}
    exec("frame = sys._getframe()", names)
    end = signals._End()
    if module != "elsewhere":
        end(signal.SIGTERM, names["frame"])
    assert again == [signal.SIGTERM] * (module != "elsewhere")
    with pytest.raises(signals.Ended):
        end(signal.SIGTERM, names["frame"])


def test_other_ignored_exceptions_are_printed() -> None:
    """What else Python ignores is printed as ever."""
    code = (
        "from harness.cli import main as cli\nclass A:\n    def __del__(self):\n        1 / 0\ncli.app = A\ncli.main()"
    )
    process = run_python(code, check=False)
    assert process.returncode == 0
    assert "ZeroDivisionError" in process.stderr
