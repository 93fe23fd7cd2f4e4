"""What is told of a crash: the last line of its traceback, and the whole of it."""

from __future__ import annotations

import traceback

DEBUG = "PRUNECHECK_DEBUG"
"""The environment variable with which the traceback of a crash is shown."""
_LONGEST = 300


def last_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, as the last line of a traceback has them."""
    name = type(error).__name__
    # By the traceback module, which also writes an error whose own `__str__` raises.
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    line = next((line for line in lines if line.partition(":")[0].rpartition(".")[2] == name), name)
    return line[:_LONGEST]


def whole_traceback(error: BaseException) -> str:
    """Return the traceback of an error, and of the errors behind it, as Python prints them."""
    return "".join(traceback.format_exception(error))


def internal_error(error: BaseException, *, in_full: bool) -> list[str]:
    """Return the lines on stderr of a crash outside of a check: one, behind the traceback if it is told in full."""
    line = f"prunecheck: internal error, which says nothing of a checkpoint: {last_line(error)}"
    if in_full:
        return [*whole_traceback(error).splitlines(), line]
    return [f"{line}; set {DEBUG}=1 to see the traceback, and report it"]
