"""A command that is told to end, by Ctrl-C or SIGTERM, undoes on the way out what it began."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

_SECONDS = 0.01  # after which a signal that came at a bad moment is sent again


class Ended(SystemExit):
    """The exit of a process that got the signal `number`; its code is a shell's, none of ours among them."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def exit_at_signals() -> None:
    """Have SIGTERM and SIGINT raise Ended wherever the main thread is, in every such place, and nothing be printed.

    Python ignores what is raised in destructors and in callbacks of weak references, and prints it: a signal that
    arrives there would be lost, and the command go on to its end. It is sent again when that place has been left.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a job in the background has it
            signal.signal(number, _end)
    sys.unraisablehook = _sent_again(sys.unraisablehook)


def ended_by(error: BaseException | None) -> Ended | None:
    """Return the signal behind an error, None if there is none: what it interrupts may fail to undo what it began.

    (torch 2.13.0: a signal where a context of its own is entered becomes "trying to pop from empty mode stack".)
    """
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise Ended(number)


def _sent_again(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Ended):
            otherwise(unraisable)
            return
        timer = threading.Timer(_SECONDS, os.kill, (os.getpid(), unraisable.exc_value.number))
        timer.daemon = True  # a command that is done by then has ended
        timer.start()

    return hook
