"""JSON that is small is parsed at once, and larger JSON value by value: one way has to give what the other does."""

from collections.abc import Callable
from typing import TypeVar
from unittest.mock import patch

from pruning import untrusted_files as json_files

Result = TypeVar("Result")

AT_ONCE, BY_VALUE = json_files._MOST_AT_ONCE, -1  # of the longest text that is parsed at once


def either_way(read: Callable[[], Result]) -> Result:
    """Return what `read` returns, or raise what it raises, after checking that it is the same in both ways."""
    outcomes: list[Result | Exception] = []
    for most in (AT_ONCE, BY_VALUE):
        with patch.object(json_files, "_MOST_AT_ONCE", most):
            try:
                outcomes.append(read())
            except Exception as error:  # of whatever kind: a refusal is compared, and raised again below
                outcomes.append(error)
    at_once, by_value = outcomes
    assert repr(at_once) == repr(by_value), "at once, it is read otherwise than value by value"
    if isinstance(at_once, Exception):
        raise at_once
    return at_once
