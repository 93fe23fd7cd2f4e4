"""What the judge of generated text measures: divergence, surprise, repetition, odd characters.

Logits are (tokens, vocabulary), one row for each token that was predicted; information is in nats.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two next-token distributions, given as logits, at each of the tokens (tokens,).

    With m the mean of the distributions p and q, (KL(p|m) + KL(q|m)) / 2 (Lin 1991, Divergence Measures Based on the
    Shannon Entropy): symmetric, 0 for equal distributions, at most ln 2 = 0.69 nats.
    """
    log_p, log_q = first.double().log_softmax(-1), second.double().log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    both = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return both.sum(-1).div(2).clamp(min=0)


def surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    """Negative log likelihood of each of `tokens` (tokens,)."""
    return -logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def expected_surprise(logits: Tensor, temperature: float) -> Tensor:
    """What `surprise` is on average for tokens that are drawn from `logits` at `temperature`, 0 for greedy (tokens,).

    Text drawn at a high temperature is surprising however sound the model is: only what goes beyond this is odd.
    """
    log_p = logits.double().log_softmax(-1)
    if temperature == 0:
        return -log_p.max(-1).values
    return -((logits.double() / temperature).softmax(-1) * log_p).sum(-1)


def surprise_variance(logits: Tensor, temperature: float) -> Tensor:
    """Variance of `surprise`, in square nats, for tokens drawn as in `expected_surprise` (tokens,)."""
    if temperature == 0:
        return torch.zeros(len(logits), dtype=torch.float64)
    log_p = logits.double().log_softmax(-1)
    deviation = -log_p - expected_surprise(logits, temperature)[:, None]
    return ((logits.double() / temperature).softmax(-1) * deviation**2).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the next-token distribution at each of the tokens (tokens,)."""
    return expected_surprise(logits, 1.0)


def repetition(tokens: Sequence[int], length: int = 3) -> float:
    """Share of the runs of `length` tokens that occurred before, 0 to 1."""
    runs = [tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def invalid_characters(text: str) -> float:
    """Share of the characters that no text has, 0 to 1: undecodable, private, unassigned and control characters."""
    odd = sum(
        character == "\N{REPLACEMENT CHARACTER}"
        or (unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\t\n\r")
        for character in text
    )
    return odd / len(text) if text else 0.0
