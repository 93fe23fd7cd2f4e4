"""Keep the libraries' own progress bars and notices out of our output."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers, accelerate and bitsandbytes below errors; our own checks say what matters."""
    # Before the first import of tokenizers, which warns when a process forks after using it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    others = [logging.getLogger(name) for name in ("accelerate", "bitsandbytes")]
    levels = [logger.level for logger in others]
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for logger in others:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(others, levels, strict=True):
            logger.setLevel(level)
        transformers_logging.enable_progress_bar()
        transformers_logging.set_verbosity(verbosity)
