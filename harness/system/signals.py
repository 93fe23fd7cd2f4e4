"""A command that is told to end, by Ctrl-C or SIGTERM, undoes on the way out what it began."""

from __future__ import annotations

import signal
from types import FrameType


class Ended(SystemExit):
    """The exit of a process that got a signal; its code is a shell's, none of ours among them."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def exit_at_signals() -> None:
    """Have SIGTERM and SIGINT raise Ended in the main thread, and nothing be printed."""

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a job in the background has it
            signal.signal(number, end)


def ended_by(error: BaseException | None) -> Ended | None:
    """Return the signal behind an error, None if there is none: what it interrupts may fail to undo what it began.

    (torch 2.13.0: a signal where a context of its own is entered becomes "trying to pop from empty mode stack".)
    """
    while error is not None and not isinstance(error, Ended):
        error = error.__context__
    return error
