"""A tiny checkpoint with a tokenizer of bytes, and a text for it."""

import random
from pathlib import Path

from harness.tiny import TinySpec, write_tiny_checkpoint
from tests.harness.checks.cases import write_tokenizer


def scannable(directory: Path, layers: int = 3, **sizes: int) -> Path:
    """Write a stock checkpoint of sliding and full layers with a tokenizer, and return its directory."""
    spec = TinySpec(layers=layers, vocabulary_size=256, layer_types="mixed", sliding_window=40, **sizes)
    base = write_tiny_checkpoint(spec, directory)
    write_tokenizer(base)
    return base


def write_text(path: Path, letters: int) -> Path:
    """Write a text of so many letters, each a token, and return its path."""
    path.write_text("".join(random.Random(letters).choices("abcdefgh .", k=letters)), encoding="utf-8")
    return path
