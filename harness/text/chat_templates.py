"""Chat templates are programs of strangers: they run in jinja's sandbox, and here for so long and no longer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# A thousand times as long as a template takes. The sandbox of transformers (5.23.0, `utils/chat_template_utils.py`) has
# jinja's own limit, 100,000 turns a loop, and loops within loops multiply it.
MOST_SECONDS = 5.0


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
    """Return the text that `apply_chat_template` makes of a conversation; `options` are its own.

    Raises what the template raises, and TimeoutError, in the main thread alone, if it has not ended in MOST_SECONDS.
    """
    with _time_limit(MOST_SECONDS, "the chat template"):
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


@contextmanager
def _time_limit(seconds: float, what: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where signals are not received
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"{what} had not ended after {seconds:g} seconds")

    begin = time.monotonic()
    before = signal.signal(signal.SIGALRM, stop)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:  # somebody else's timer goes on
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - begin), 1e-3))
