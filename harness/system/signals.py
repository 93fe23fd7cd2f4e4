"""A command that is told to end, by Ctrl-C or SIGTERM, undoes on the way out what it began."""

from __future__ import annotations

import os
import signal
import sys
import time
from _thread import start_new_thread
from collections.abc import Callable
from types import FrameType
from typing import Any

_SECONDS = 0.01  # after which a signal that came at a bad moment is sent again
_MOST_TIMES = 100  # that one is sent again

# Modules whose Python code takes and gives back locks: what is raised there may leave one taken for ever, for which
# others then wait, such as the threads that transformers loads with. And our own, below, where a signal would be lost.
_LEFT_ALONE = ("threading", "concurrent.futures._base", "concurrent.futures.thread", "logging", __name__)


class Ended(SystemExit):
    """The exit of a process that got the signal `number`; its code is a shell's, none of ours among them."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def exit_at_signals() -> None:
    """Have SIGTERM and SIGINT raise Ended wherever the main thread is, and nothing be printed.

    Python ignores what is raised in destructors and in callbacks of weak references, and prints it: a signal that
    arrives there would be lost, and the command go on to its end. And where a lock is being taken it would stay taken.
    So it is sent again when such a place has been left.
    """
    end = _End()
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a job in the background has it
            signal.signal(number, end)
    sys.unraisablehook = _sent_again(sys.unraisablehook)


def ended_by(error: BaseException | None) -> Ended | None:
    """Return the signal behind an error, None if there is none: what it interrupts may fail to undo what it began.

    (torch 2.13.0: a signal where a context of its own is entered becomes "trying to pop from empty mode stack".)
    """
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error


class _End:
    """What receives a signal: raises Ended, or sends it again."""

    def __init__(self) -> None:
        self._place: tuple[FrameType | None, int] = (None, 0)
        self._times = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise Ended, unless the innermost frame is to be left alone.

        One that is found twice at the same instruction waits for something, which may take for ever, and so may one
        that waits again and again: neither is a step of a lock.
        """
        place = (frame, frame.f_lasti if frame is not None else 0)
        is_left_alone = frame is not None and frame.f_globals.get("__name__") in _LEFT_ALONE
        if is_left_alone and place != self._place and self._times < _MOST_TIMES and _send_again(number):
            self._place = place
            self._times += 1
        else:
            self._place, self._times = (None, 0), 0
            raise Ended(number)


def _sent_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Ended):
            _send_again(unraisable.exc_value.number)
        else:
            otherwise(unraisable)

    return hook


def _send_again(number: int) -> bool:
    """Send a signal to this process a little later; return whether that can be done."""
    try:
        # Not a threading.Timer: this thread would wait for it to begin, and may wait so long that the signal is there.
        start_new_thread(_send_late, (number,))
    except RuntimeError:  # the interpreter is ending
        return False
    return True


def _send_late(number: int) -> None:
    time.sleep(_SECONDS)
    os.kill(os.getpid(), number)  # a command that is done by then has ended
