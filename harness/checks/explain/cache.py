"""From wrong logits through a cache to why: is it the cache, or what the model computes without one, too?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.checks.check import fault
from harness.models.batches import random_ids
from harness.models.forward import TokenBatch, cached_logits, unpadded
from harness.models.self_agreement import (
    Observed,
    agrees_uncached,
    is_function_of_prefixes,
    other_padding,
    same,
    wrong_uncached,
)
from harness.models.session import Session
from harness.report.outcomes import FoundFault
from harness.system.whose_error import ignoring_errors_of

from .causes import adapter_attached, learns_a_prompt
from .logits import logits_differ, mask_not_handed_on

Observe = Callable[[TokenBatch], Sequence[Observed]]


def cache_differs(
    session: Session, kind: str, use: str, seen: str, batch: TokenBatch, observe: Observe, operation: str
) -> FoundFault:
    """Explain why logits through a cache are wrong; `observe` runs the candidate on a batch, used in this way."""
    if learns_a_prompt(session):
        return adapter_attached(session, seen)
    observed = observe(batch)
    agrees = agrees_uncached(session, observed, kind)
    wrong = wrong_uncached(session, observed, operation)
    if wrong is not None and (agrees or not all(is_function_of_prefixes(session, each.batch) for each in observed)):
        return logits_differ(session, wrong, seen)
    if (found := mask_not_handed_on(session, seen)) is not None:
        return found
    if batch.is_padded and _right_unpadded(session, kind, batch, observe):
        if wrong is not None:
            return logits_differ(session, wrong, seen)
        if _reads_padding(session, batch, observed, observe):
            return fault(
                "padding", "padding-read-as-text",
                f"what padding holds reaches the logits through a {kind} cache ({use}): with other padding they change",
                seen, remedy="Hand attention_mask on to every layer, in every step.",
            )  # fmt: skip
    return through_the_cache(session, kind, use, seen, uncached_is_right=wrong is None)


def text_differs(session: Session, seen: str) -> FoundFault:
    """Explain why a text is not the reference's, though the logits of the tokens are as far as they were compared."""
    batch = unpadded(random_ids(session.subject.config, 1, 40))
    observed = [Observed(batch, cached_logits(session.model, batch, None, (20, *[1] * 20))[0])]
    if not agrees_uncached(session, observed, "dynamic") and is_function_of_prefixes(session, batch):
        return through_the_cache(session, "dynamic", "generate", seen, uncached_is_right=True)
    if (wrong := wrong_uncached(session, observed, "cached")) is not None:
        return logits_differ(session, wrong, seen)
    return fault(
        "tokenizer", "generates-otherwise",
        f"the logits are right, with and without a cache, but generate makes another text of them: {seen}",
        remedy="Copy generation_config.json from the base, and take no generate from the checkpoint's own code.",
    )  # fmt: skip


def through_the_cache(session: Session, kind: str, use: str, seen: str, *, uncached_is_right: bool) -> FoundFault:
    """Return the fault of a cache through which a model computes something else than without it."""
    plan = session.subject.plan
    lost = "layer 0's attention is pruned, whose slot a cache asks for its length" if 0 in plan.self_attn else ""
    return fault(
        "cache", f"{kind}-cache-{use}",
        f"logits through a {kind} cache ({use}) are not those of the same model without a cache"
        + (", which are right" if uncached_is_right else ""),
        seen, *([lost] if lost else []),
        remedy="Have every attention, a pruned one too, record its tokens in the cache slot of its own layer_idx.",
    )  # fmt: skip


def _right_unpadded(session: Session, kind: str, batch: TokenBatch, observe: Observe) -> bool:
    """Whether the same tokens without padding give the same through a cache as without."""
    with ignoring_errors_of(session.model):
        return agrees_uncached(session, observe(unpadded(batch.ids)), kind)
    return False  # it raises: then it is not padding alone


def _reads_padding(session: Session, batch: TokenBatch, observed: Sequence[Observed], observe: Observe) -> bool:
    with ignoring_errors_of(session.model):
        return not same(observed, observe(other_padding(batch)))
    return False
