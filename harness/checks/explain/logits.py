"""From what a check saw go wrong to a fault: measure what could bring it about, and say what was measured.

Each function returns one fault. Where nothing that was measured explains what was seen, the family is `unexplained`
or, where code of the checkpoint's own is all that is left, `code`; the first layer that diverges is named.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import replace

from torch import nn

from harness.checks.check import fault, listed
from harness.errors import NotChecked, Undecided
from harness.models.batches import BATCHES
from harness.models.forward import TokenBatch, decoder_layers, holds_values, module_of, uncached_logits, unpadded
from harness.models.layers import not_passed_on, without_the_mask
from harness.models.parts import (
    adds_its_norm,
    buffer_differences,
    code_error,
    first_diverging_layer,
    has_adapter,
    meta_attributes,
    pruned_that_run,
    resident_differences,
    tied_keys_declared_otherwise,
)
from harness.models.session import Session
from harness.reference.tolerances import tolerance
from harness.report.outcomes import FoundFault
from harness.system.whose_error import ignoring_errors_of, raised_by
from pruning import SubLayer

from .causes import (
    adapter_attached,
    another_class,
    buffers_wrong,
    float16,
    is_stock,
    learns_a_prompt,
    resident_wrong,
    stock_class,
)
from .offloaded import offloaded_differences
from .patches import patched_modules, without_patches

FIRST_LAYER = "the first layer whose output leaves the reference is"
_FROM_THE_CODE = "Correct the modeling code, or use the modeling files that prunecheck writes."


def logits_differ(session: Session, batch: TokenBatch, seen: str) -> FoundFault:
    """Explain why uncached logits are not the reference's; `seen` is the comparison's own words."""
    for explain in (
        _by_class,
        _by_adapter,
        _by_precision,
        _by_resident,
        _by_buffers,
        _by_mask,
        _by_padding,
        _by_calls,
        _by_residual,
        _by_patches,
    ):
        try:
            found = explain(session, batch, seen)
        except (NotChecked, Undecided):
            continue
        if found is not None:
            return replace(found, evidence=(*_where(session, batch), *found.evidence))
    return _by_elimination(session, batch, seen)


def _where(session: Session, batch: TokenBatch) -> list[str]:
    """Say which layer leaves the reference first, if the layers can be compared."""
    try:
        diverging = first_diverging_layer(session, batch)
    except (NotChecked, Undecided):
        return []
    if diverging is None:
        return ["every decoder layer agrees with the reference: what follows them does not"]
    return [f"{FIRST_LAYER} {diverging[0]}, by {diverging[1]:.3g} of its largest value"]


def _by_class(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    if is_stock(session.model) and not session.subject.plan.is_empty:
        return stock_class(session, seen)
    return another_class(session, seen)


def _by_precision(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    return float16(session, seen)


def _by_mask(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    return mask_not_handed_on(session, seen)


def mask_not_handed_on(session: Session, seen: str) -> FoundFault | None:
    """Return the fault of layers whose attention is not given the mask that the other layers have."""
    layers: list[int] = []
    # Of a step through a cache, which the checks of the cache tell; a ValueError where the output holds no cache.
    with ignoring_errors_of(session.model), suppress(ValueError):
        layers = without_the_mask(session, BATCHES["left-padded"](session))
    if not layers:
        return None
    names = {str(SubLayer(index, "self_attn")) for index in layers}
    return fault(
        "code", "mask-not-handed-on", f"{listed(names)} does not get the attention mask of the layer",
        "in a padded batch", seen, remedy="Hand attention_mask on to every layer as it is.",
    )  # fmt: skip


def _by_padding(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    """Explain a difference in a padded batch that its rows, each alone and unpadded, do not have."""
    if not batch.is_padded or first_diverging_layer(session, unpadded(batch.ids)) is not None:
        return None
    for row, mask in zip(batch.ids, batch.mask, strict=True):
        alone = unpadded(row[mask.bool()][None])
        if first_diverging_layer(session, alone) is not None:
            return None
    return fault(
        "padding", "padding-read-as-text",
        "padded rows are wrong, though each of them is right alone: padding is read as text, or positions are shifted",
        seen, remedy="Pass attention_mask, and pad on the left: tokenizer.padding_side = 'left'.",
    )  # fmt: skip


def _by_adapter(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    return adapter_attached(session, seen) if has_adapter(session.model) else None


def _by_resident(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    wrong, compared = resident_differences(session)
    if not wrong and session.mode.is_offloaded:
        wrong, compared = offloaded_differences(session)
    return resident_wrong(session, wrong, compared, seen) if wrong else None


def _by_buffers(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    wrong, _ = buffer_differences(session)
    return buffers_wrong(wrong, seen) if wrong else None


def _by_calls(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    running = pruned_that_run(session, batch)
    layers = decoder_layers(session.model)
    if not running or not all(holds_values(module_of(layers, each)) for each in running):
        return None
    names = {str(each) for each in running}
    config = session.subject.stored.config or {}
    return fault(
        "plan", "pruned-sub-layers-run",
        f"{len(running)} pruned sub-layer(s) run in {type(session.model).__name__}: {listed(names)}",
        f"keys of config.json: {listed(set(config))}", seen,
        remedy="Have the class read the plan from config.json when it is built, and skip these sub-layers.",
    )  # fmt: skip


def _by_residual(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    diverging = first_diverging_layer(session, batch)
    if diverging is None:
        return None
    layer_idx = diverging[0]
    if (name := adds_its_norm(session, batch, layer_idx)) is not None:
        return fault(
            "residual", "pruned-norm-still-added",
            f"layer {layer_idx} adds norm(x) to x where its {name} is pruned, in place of passing x on",
            seen, remedy="Skip norm, module and residual add together.",
        )  # fmt: skip
    if not (changed := not_passed_on(session, batch)):
        return None
    names = {str(each) for each in changed}
    return fault(
        "residual", "residual-not-passed-on",
        f"in place of {len(names)} pruned sub-layer(s) x is not passed on, but changed: {listed(names)}",
        "each layer was given what enters it: those that prune nothing compute what the reference's do", seen,
        remedy="Skip norm, module and residual add together: what enters a pruned sub-layer leaves it as it is.",
    )  # fmt: skip


def _by_patches(session: Session, batch: TokenBatch, seen: str) -> FoundFault | None:
    """Explain a difference that is gone without the hooks, and the forwards, that modules were given after the load."""
    names = set(patched_modules(session.model)) if session.is_given else set()
    if not names:
        return None
    with session.pruned_reference() as reference:
        expected = uncached_logits(reference, batch)
    with without_patches(session.model):
        difference = (uncached_logits(session.model, batch) - expected)[batch.mask.bool()].abs().max()
    if not difference <= tolerance(session.mode.precision, "attention_implementation").relative * expected.abs().max():
        return None
    return fault(
        "code", "patched-after-the-load",
        f"{len(names)} module(s) have hooks, or a forward of their own, that change the logits: {listed(names)}",
        "without these the logits are right", seen,
        remedy="Judge, and use, the model without them, or correct what they compute.",
    )  # fmt: skip


def _by_elimination(session: Session, batch: TokenBatch, seen: str) -> FoundFault:
    evidence = [
        "class, resident parameters, buffers and the sub-layers that run are right, as far as they were seen",
        *_where(session, batch),
    ]
    own_code = session.subject.code.is_own and session.subject.code.released is None
    family, what = (
        ("code", "the modeling code computes something else") if own_code else ("unexplained", "the logits differ")
    )
    return fault(family, "logits-differ", f"{what}: {seen}", *evidence, remedy=_FROM_THE_CODE)


def raised(session: Session, error: BaseException, *, cached: bool, batch: TokenBatch | None = None) -> FoundFault:
    """Explain an error that the candidate's forward pass raised; `batch`, or a long one, is what is tried uncached."""
    if cached and (uncached := _raises_uncached(session, batch)) is not None:
        return raised(session, uncached, cached=False)
    text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
    where = traceback.extract_tb(error.__traceback__)
    evidence = [text] + ([f"raised in {where[-1].name}, {where[-1].filename.rpartition('/')[2]}"] if where else [])
    identities = [
        f"layers.{layer_idx}.{name}"
        for layer_idx, layer in enumerate(decoder_layers(session.model))
        for name, part in layer.named_children()  # whatever the class calls it
        if isinstance(part, nn.Identity)
    ]
    if meta := meta_attributes(session):
        return fault(
            "gate", "tensor-attribute-without-values",
            f"{listed(meta)} holds no values: a tensor made while the model was built on the meta device", *evidence,
            remedy="Register it as a buffer that is stored, or compute it in the forward pass.",
        )  # fmt: skip
    if identities and isinstance(error, TypeError):
        return fault(
            "residual", "identity-in-place-of-module",
            f"{listed(identities)} is an Identity, which cannot be called as the module it replaced", *evidence,
            remedy="Skip the sub-layer in the layer's forward; leave the module in its place.",
        )  # fmt: skip
    if is_stock(session.model) and not session.subject.plan.is_empty:
        return stock_class(session, *evidence)
    if cached and learns_a_prompt(session):
        return adapter_attached(session, *evidence)
    if cached:
        return fault(
            "cache", "cache-raises", f"a forward pass with a KV cache raises {text}", *evidence[1:],
            remedy="Keep each layer's own layer_idx, and a slot of the cache for every layer.",
        )  # fmt: skip
    return fault("code", "forward-raises", f"a forward pass raises {text}", *evidence[1:], remedy=_FROM_THE_CODE)


def _raises_uncached(session: Session, batch: TokenBatch | None) -> Exception | None:
    """Return the error that the same tokens raise without a cache: then it is not the cache that is at fault."""
    try:
        uncached_logits(session.model, BATCHES["long"](session) if batch is None else batch)
    except NotChecked:
        return None
    except Exception as error:
        if not raised_by(error, session.model):
            raise
        return error
    return None


def load_failed(session: Session, error: BaseException) -> FoundFault:
    """Explain an error that the load raised."""
    text = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
    if (declared := tied_keys_declared_otherwise(session)) is not None:
        return fault(
            "tied-head", "tied-keys-declaration", f"the class declares _tied_weights_keys as {declared}", text,
            remedy="Declare _tied_weights_keys as the stock class of this version of transformers does.",
        )  # fmt: skip
    if (imports := code_error(session)) is not None:
        return fault(
            "class", "code-does-not-import", f"the code that auto_map names cannot be imported: {imports}", text,
            remedy="Put the modeling files beside the weights, as prunecheck or save_pretrained writes them.",
        )  # fmt: skip
    if session.mode.is_quantised:
        family = "quantisation"
    else:
        family = "code" if session.subject.code.is_own and session.subject.code.released is None else "unexplained"
    return fault(
        family, "load-raises", f"the checkpoint does not load as {session.mode.name}: {text}",
        remedy="Read the error: it is transformers' or the modeling code's own.",
    )  # fmt: skip
