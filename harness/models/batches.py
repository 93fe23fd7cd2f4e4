"""The token batches that models are compared on: random and natural, short and long, single and several, padded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final

import torch
from torch import Tensor

from harness.errors import NotChecked

from .forward import TokenBatch, unpadded

# Beyond any sliding window, as long as that fits on a laptop: the unpruned Qwen3 checkpoints have windows of thousands,
# and switch them off.
LONGEST: Final = 1024
_LONG: Final = 256
_BEYOND_THE_WINDOW: Final = 9


def random_ids(config: Mapping[str, Any], batch: int, tokens: int, seed: int = 0) -> Tensor:
    """Return random token ids, int64 (batch, tokens), the same for the same arguments."""
    generator = torch.Generator().manual_seed(1000 * tokens + 10 * batch + seed)
    return torch.randint(0, int(config["vocab_size"]), (batch, tokens), generator=generator)


def _random(session: Any) -> TokenBatch:
    return unpadded(random_ids(session.subject.config, 1, 24))


def _several(session: Any) -> TokenBatch:
    return unpadded(random_ids(session.subject.config, 3, 13))


def _one_token(session: Any) -> TokenBatch:
    return unpadded(random_ids(session.subject.config, 1, 1))


def _long(session: Any) -> TokenBatch:
    config = session.subject.config
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    tokens = max(_LONG, int(window or 0) + _BEYOND_THE_WINDOW)
    if tokens > LONGEST:
        raise NotChecked(f"the sliding window of {window} tokens is longer than {LONGEST}, which is what is tried")
    longest = config.get("max_position_embeddings")
    return unpadded(random_ids(config, 1, min(tokens, int(longest)) if longest else tokens))


def _left_padded(session: Any) -> TokenBatch:
    ids = random_ids(session.subject.config, 3, 12, seed=1)
    mask = torch.stack([torch.arange(ids.shape[1]) >= padding for padding in (0, 3, 7)]).long()
    return TokenBatch(ids, mask)


def _natural(session: Any) -> TokenBatch:
    """Return natural texts, left-padded to the same length."""
    rows = [_encoded(session, text)[:64] for text in natural_texts()]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return TokenBatch(ids, mask)


def _encoded(session: Any, text: str) -> list[int]:
    row: list[int] = session.tokenizer(text)["input_ids"]
    size = int(session.subject.config["vocab_size"])
    if not row or max(row) >= size:
        raise NotChecked(f"the tokenizer gives the token {max(row, default=None)}, but the vocabulary has {size}")
    return row


def natural_texts() -> list[str]:
    """Return short texts in several registers and languages."""
    texts: list[str] = json.loads(
        resources.files("harness").joinpath("data", "natural_texts.json").read_text(encoding="utf-8")
    )
    return texts


BATCHES: Final[Mapping[str, Callable[[Any], TokenBatch]]] = {
    "random": _random,
    "one-token": _one_token,
    "long": _long,
    "several": _several,
    "left-padded": _left_padded,
    "natural": _natural,
}
"""Batches by name; each takes a Session, and raises NotChecked if it cannot be made."""
