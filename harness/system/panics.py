"""Panics of the tokenizers library, which is written in Rust, as errors: they are no `Exception` of Python's.

Its regular expressions have one where they try too much: ten million steps from one place of a text, 0.1 seconds
(tokenizers 0.23.3, with Oniguruma's default limit of retries).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Panicked(Exception):
    """A library written in Rust panicked; the message is its first line."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic within the `with` into Panicked; all else is raised as it is."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException" or type(error).__module__ != "pyo3_runtime":
            raise
        raise Panicked((str(error).strip() or "no reason is given").splitlines()[0][:200]) from None
