"""How a model with something removed predicts the next token, beside the full model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from harness.errors import CannotRun

PREDICTIONS: Final = ("nll", "kl", "changed")
"""What an Outcome can hold, by name."""

# Elements of logits at once: enough tokens for matrix products at full speed, also with a large vocabulary.
_LOGITS_AT_ONCE: Final = 2**23


@dataclass(frozen=True)
class Outcome:
    """How a model predicts each next token: float32 (windows, tokens - 1) on the CPU, None for what was not asked for.

    * `nll`: negative log likelihood of the token that follows, in nats.
    * `kl`: Kullback-Leibler divergence of the next-token distribution to the full model's, KL(full || removed), in
      nats; 0 for the full model itself, and, by rounding, perhaps slightly negative for others.
    * `changed`: 1 where the most likely next token is another than the full model's, else 0.

    Where the logits of a token are not finite, all three are NaN.
    """

    nll: Tensor | None = None
    kl: Tensor | None = None
    changed: Tensor | None = None

    @property
    def is_finite(self) -> bool:
        """Whether every number is one."""
        return all(bool(values.isfinite().all()) for _, values in self.items())

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what was asked for, by name."""
        for field in fields(self):
            if (values := getattr(self, field.name)) is not None:
                yield field.name, values


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Return the outcome of several parts of the windows, one after the other."""
    names = [name for name, _ in parts[0].items()]
    return Outcome(**{name: torch.cat([dict(part.items())[name] for part in parts]) for name in names})


def compared(
    ids: Tensor,
    streams: Sequence[Tensor],
    logits_of: Callable[[Tensor], Tensor],
    predictions: Collection[str],
    vocabulary_size: int,
) -> list[Outcome]:
    """Return the outcome of each stream, of which the first is the full model's.

    `ids` are int64 (rows, tokens), a stream what leaves the last layer, (rows, tokens, hidden). `logits_of` makes
    float32 logits (predicted tokens, vocabulary) out of (predicted tokens, hidden); it is called on a piece of the
    tokens, for one stream after the other, so that few logits are there at a time.

    Raises CannotRun if logits of the full model are not finite.
    """
    following = ids[:, 1:].flatten().to(streams[0].device)
    hidden = [stream[:, :-1].flatten(0, 1) for stream in streams]
    at_once = max(1, _LOGITS_AT_ONCE // vocabulary_size)
    found: list[dict[str, list[Tensor]]] = [{name: [] for name in predictions} for _ in streams]
    for first in range(0, len(following), at_once):
        piece = slice(first, first + at_once)
        compare = _Piece(logits_of(hidden[0][piece]), following[piece])
        for values, each in zip(found, hidden, strict=True):
            logits = compare.full_logits if each is hidden[0] else logits_of(each[piece])
            for name, result in compare(logits, predictions).items():
                values[name].append(result.cpu())
    shape = (ids.shape[0], ids.shape[1] - 1)
    return [Outcome(**{name: torch.cat(parts).view(shape) for name, parts in values.items()}) for values in found]


class _Piece:
    """The full model's predictions of some tokens, to compare others with."""

    def __init__(self, full_logits: Tensor, following: Tensor) -> None:
        if not bool(full_logits.isfinite().all()):
            raise CannotRun("the logits of the model, nothing removed, are not finite: load it with another --dtype")
        self.full_logits = full_logits
        self._following = following.to(full_logits.device)[:, None]
        self._log_likely = log_softmax(full_logits, dim=-1)
        self._likely = self._log_likely.exp()
        self._most_likely = full_logits.argmax(-1)

    def __call__(self, logits: Tensor, predictions: Collection[str]) -> dict[str, Tensor]:
        largest, most_likely = logits.max(-1)  # NaN and infinity are the largest of what they are among
        results: dict[str, Tensor] = {}
        if "changed" in predictions:
            results["changed"] = (most_likely != self._most_likely).float()
        if "nll" in predictions or "kl" in predictions:
            log_likely = log_softmax(logits, dim=-1)
            if "nll" in predictions:
                results["nll"] = -log_likely.gather(-1, self._following)[:, 0]
            if "kl" in predictions:
                results["kl"] = torch.linalg.vecdot(self._likely, log_likely.neg_().add_(self._log_likely))
        return {name: values.masked_fill(~largest.isfinite(), torch.nan) for name, values in results.items()}
