"""Calibration text: bundled in several registers, or the user's own; token by token, in windows of equal length."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from harness.errors import CannotRun
from harness.system.panics import Panicked, panics_as_errors

WINDOW: Final = 128
"""Tokens in a window, or fewer if fewer are asked for."""

_MOST_BYTES: Final = 2**28  # of a text; a FIFO or a device would have no end


@dataclass(frozen=True)
class Windows:
    """Token ids, int64 (windows, tokens), and where each window is from: the text's name, and its first token there."""

    ids: Tensor
    places: tuple[tuple[str, int], ...]

    @property
    def digest(self) -> str:
        """A sha256 of the tokens."""
        return hashlib.sha256(repr(self.ids.tolist()).encode()).hexdigest()


def bundled_texts() -> dict[str, str]:
    """Return the bundled texts by register; see `harness/data/calibration/README.md` for their licence."""
    folder = resources.files("harness").joinpath("data", "calibration")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".txt"))
    return {name.removesuffix(".txt"): folder.joinpath(name).read_text(encoding="utf-8") for name in names}


def read_texts(files: Sequence[Path]) -> dict[str, str]:
    """Return the texts of files by their names as given; raises CannotRun for what is no UTF-8 text."""
    texts = {}
    for path in files:
        try:
            if path.exists() and not path.is_file():
                raise CannotRun(f"--text {path} is no file: name a file of UTF-8 text")
            if path.stat().st_size > _MOST_BYTES:
                raise CannotRun(f"--text {path} has {path.stat().st_size} bytes: name a part of it, some kilobytes")
            texts[str(path)] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CannotRun(f"--text {path} is not UTF-8 at byte {error.start}: convert it") from None
        except OSError as error:
            raise CannotRun(f"--text {path} cannot be read: {error.strerror}") from None
    return texts


def cut(texts: Mapping[str, str], tokenizer: Any, tokens: int, vocabulary_size: int) -> Windows:
    """Cut texts into windows of WINDOW tokens, as many as `tokens` allow, taken from each text in turn.

    What is left of a text behind its last full window is not used, and no special tokens are added.

    Raises CannotRun if no text fills a window, or the tokenizer gives tokens beyond the vocabulary.
    """
    window = min(WINDOW, tokens)
    try:
        with panics_as_errors():
            read = {name: tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in texts.items()}
    except Panicked as error:
        raise CannotRun(f"the tokenizer cannot read the text, its library panics: {error}") from None
    encoded = {name: list(ids) for name, ids in read.items()}
    largest = max((max(ids, default=0) for ids in encoded.values()), default=0)
    if largest >= vocabulary_size:
        raise CannotRun(f"the tokenizer gives the token {largest}, but the model's vocabulary has {vocabulary_size}")
    longest = max(map(len, encoded.values()), default=0)
    if longest < window:
        raise CannotRun(
            f"no text fills a window of {window} tokens, the longest has {longest}: give more text, or fewer --tokens"
        )
    places = [
        (name, first)
        for first in range(0, longest, window)
        for name, ids in encoded.items()
        if first + window <= len(ids)
    ][: tokens // window]
    rows = [encoded[name][first : first + window] for name, first in places]
    return Windows(torch.tensor(rows), tuple(places))
