"""Does a model agree with itself: through a cache and without, on a prefix and on the whole, now and once more?

A cache is at fault where a model's steps through it are not what the model computes without it, and where what it
computes without it is one function of the tokens before: the same on every prefix as on the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from harness.reference.tolerances import tolerance

from .forward import TokenBatch, uncached_logits
from .session import Session

_EVERY_PREFIX_UP_TO: Final = 32
_THEN_EVERY: Final = 4


@dataclass(frozen=True)
class Observed:
    """What a model gave for a batch, float32 (rows, tokens, vocabulary): the logits of each token.

    Of a step of `generate`, it is the log probabilities after the last token alone (rows, 1, vocabulary).
    """

    batch: TokenBatch
    got: Tensor
    is_step: bool = False

    @property
    def mask(self) -> Tensor:
        """Which tokens of `got` are no padding, bool (rows, tokens)."""
        mask = self.batch.mask.bool()
        return mask[:, -1:] if self.is_step else mask

    def without_cache(self, model: Any) -> Tensor:
        """Return what a model gives for the same tokens, rows and mask in one pass without a cache."""
        logits = uncached_logits(model, self.batch)
        return logits[:, -1:].log_softmax(-1) if self.is_step else logits


def agrees_uncached(session: Session, observed: Sequence[Observed], kind: str) -> bool:
    """Whether all that was observed is what the candidate itself gives without a cache."""
    allowed = tolerance(session.mode.precision, "static_cache" if kind == "static" else "cached").relative
    return all(_close(each.got, each.without_cache(session.model), each.mask, allowed) for each in observed)


def is_function_of_prefixes(session: Session, batch: TokenBatch) -> bool:
    """Whether, without a cache, the candidate's last token of every prefix is what the whole batch gives there, twice.

    What is not finite, inside too, is nothing to compare with: kernels make other numbers of NaN in other shapes.
    """
    allowed = tolerance(session.mode.precision, "cached").relative
    whole, mask = uncached_logits(session.model, batch), batch.mask.bool()
    if not _is_finite_inside(session.model, batch) or not _close(
        uncached_logits(session.model, batch), whole, mask, allowed
    ):
        return False
    for prefix in prefixes(batch):
        width = prefix.ids.shape[1]
        last = uncached_logits(session.model, prefix)[:, -1:]
        if not _close(last, whole[:, width - 1 : width], mask[:, width - 1 : width], allowed, whole[mask]):
            return False
    return True


def _is_finite_inside(model: Any, batch: TokenBatch) -> bool:
    """Whether nothing that a module puts out in an uncached pass is NaN or infinite; padding may be."""
    found: list[bool] = []

    def look(module: nn.Module, args: Any, output: Any) -> None:
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                finite = tensor.isfinite().cpu()
                rows = finite if finite.shape[:2] != mask.shape else finite[mask]
                found.append(bool(rows.all()))

    mask = batch.mask.bool()
    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        logits = uncached_logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return all(found) and bool(logits[mask].isfinite().all())


def wrong_uncached(session: Session, observed: Sequence[Observed], operation: str) -> TokenBatch | None:
    """Return a batch, or else a prefix of one, on which the candidate is not the reference, both without a cache."""
    allowed = tolerance(session.mode.precision, operation).relative
    batches = [each.batch for each in observed]
    with session.pruned_reference() as reference:
        for batch in (*batches, *(prefix for each in batches for prefix in prefixes(each))):
            expected, got = uncached_logits(reference, batch), uncached_logits(session.model, batch)
            if not _close(got, expected, batch.mask.bool(), allowed):
                return batch
    return None


def prefixes(batch: TokenBatch) -> Iterator[TokenBatch]:
    """Yield the prefixes of a batch, all of the short ones, that have a token in a row at least."""
    width = batch.ids.shape[1]
    for end in (*range(1, min(width, _EVERY_PREFIX_UP_TO)), *range(_EVERY_PREFIX_UP_TO, width, _THEN_EVERY)):
        if batch.mask[:, :end].any():
            yield TokenBatch(batch.ids[:, :end], batch.mask[:, :end])


def other_padding(batch: TokenBatch) -> TokenBatch:
    """Return the same tokens behind other padding: what a model makes of it must not depend on that."""
    return TokenBatch(torch.where(batch.mask.bool(), batch.ids, batch.ids.flip(0).roll(1, 1) // 2), batch.mask)


def same(left: Sequence[Observed], right: Sequence[Observed]) -> bool:
    """Whether two runs, of other padding, gave the same; NaN is the same as NaN."""
    return len(left) == len(right) and all(
        one.got.shape == other.got.shape
        and torch.allclose(one.got[one.mask], other.got[other.mask], rtol=1e-5, atol=1e-5, equal_nan=True)
        for one, other in zip(left, right, strict=True)
    )


def _close(got: Tensor, expected: Tensor, mask: Tensor, allowed: float, scale: Tensor | None = None) -> bool:
    if got.shape != expected.shape:
        return False
    if not mask.any():
        return True
    largest = (expected[mask] if scale is None else scale).abs().max()
    return bool((got - expected)[mask].abs().max() <= allowed * largest)  # NaN is no agreement
