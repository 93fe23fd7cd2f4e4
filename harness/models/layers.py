"""Each decoder layer by itself: given what enters the candidate's, does it put out what the reference's does?

So what a layer does is told apart from what it was given: an error of an earlier layer is none of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.reference.tolerances import tolerance
from pruning import SubLayer

from .forward import TokenBatch, cached_logits, decoder_layers, uncached_logits
from .session import Session


@dataclass
class LayerSeen:
    """Hidden states (rows, tokens, hidden) in one pass: into a layer, between its two halves, and out of it.

    `attended` is what its self_attn put out, `given` the mask of the layer and `mask` that of its self_attn. What was
    not seen is None.
    """

    entered: Tensor | None = None
    attended: Tensor | None = None
    halfway: Tensor | None = None
    left: Tensor | None = None
    given: Tensor | None = None
    mask: Tensor | None = None


def not_passed_on(session: Session, batch: TokenBatch) -> list[SubLayer]:
    """Return the pruned sub-layers in whose place a layer does something else than to pass on what enters it.

    Empty unless that is all that is wrong: no layer that prunes nothing may deviate, and none for what it keeps.
    """
    plan = session.subject.plan
    ours = layers_seen(session.model, batch)
    entered = {index: seen.entered for index, seen in ours.items() if seen.entered is not None}
    with session.pruned_reference() as reference:
        theirs = layers_seen(reference, batch, entered)
    found: list[SubLayer] = []
    for index, seen in ours.items():
        expected = theirs.get(index, LayerSeen())
        if _close(session, batch, seen.left, expected.left):
            continue
        pruned = [each for each in plan if each.layer == index]
        kinds = [each.kind for each in pruned]
        if (
            (kinds == ["self_attn"] and not _close(session, batch, seen.halfway, seen.entered))
            or (kinds == ["mlp"] and _close(session, batch, seen.attended, expected.attended))
            or len(pruned) == 2
        ):
            found += pruned
        else:
            return []
    return found


def without_the_mask(session: Session, batch: TokenBatch) -> list[int]:
    """Return the layers whose kept self_attn is not given the mask that the reference's is, or that the layer has.

    The former in a pass without a cache, the latter in a step with one. Empty if that is so of every layer: then the
    mask was lost, or made otherwise, before it came to the layers.
    """
    plan = session.subject.plan
    ours = layers_seen(session.model, batch)
    with session.pruned_reference() as reference:
        theirs = layers_seen(reference, batch)
    kept = [index for index, seen in ours.items() if index not in plan.self_attn and seen.attended is not None]
    other = [index for index in kept if not _same_mask(ours[index].mask, theirs[index].mask)]
    if other:
        return other if len(other) < len(kept) else []
    steps = {index: LayerSeen() for index in ours}
    with _hooks(decoder_layers(session.model), steps, {}):
        cached_logits(session.model, batch, None, (batch.ids.shape[1] - 1, 1))
    return [index for index in kept if not _same_mask(steps[index].mask, steps[index].given)]


def _same_mask(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return theirs is None
    return ours.shape != theirs.shape or bool((ours == theirs).all())  # another shape: of another kind of attention


def layers_seen(model: Any, batch: TokenBatch, entered: Mapping[int, Tensor] | None = None) -> dict[int, LayerSeen]:
    """Return what each decoder layer did in an uncached pass, by index; `entered` is put in place of what enters it."""
    layers = decoder_layers(model)
    seen = {index: LayerSeen() for index in range(len(layers))}
    with _hooks(layers, seen, entered or {}):
        uncached_logits(model, batch)
    return seen


@contextmanager
def _hooks(layers: list[nn.Module], seen: dict[int, LayerSeen], entered: Mapping[int, Tensor]) -> Iterator[None]:
    handles = []
    for index, layer in enumerate(layers):

        def enter(module: nn.Module, args: Any, kwargs: Any, index: int = index) -> Any:
            # What the layers hand on from one to the next comes first, by whatever name.
            name = None if args else next(iter(kwargs))
            hidden: Tensor = args[0] if name is None else kwargs[name]
            if index in entered:
                hidden = entered[index].to(hidden)
            seen[index].entered = hidden.detach().cpu()
            seen[index].given = _mask(kwargs)
            if name is None:
                return (hidden, *args[1:]), kwargs
            return args, kwargs | {name: hidden}

        def leave(module: nn.Module, args: Any, output: Any, index: int = index) -> None:
            seen[index].left = _first(output)

        def attend(module: nn.Module, args: Any, kwargs: Any, output: Any, index: int = index) -> None:
            seen[index].attended = _first(output)
            seen[index].mask = _mask(kwargs)

        def halfway(module: nn.Module, args: Any, index: int = index) -> None:
            seen[index].halfway = _first(args)

        handles += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(leave)]
        parts = dict(layer.named_children())
        if "self_attn" in parts:
            handles.append(parts["self_attn"].register_forward_hook(attend, with_kwargs=True))
        if "post_attention_layernorm" in parts:
            handles.append(parts["post_attention_layernorm"].register_forward_pre_hook(halfway))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mask(kwargs: Mapping[str, Any]) -> Tensor | None:
    mask = kwargs.get("attention_mask")
    return mask.cpu() if isinstance(mask, Tensor) else None


def _first(output: Any) -> Tensor | None:
    hidden = output[0] if isinstance(output, tuple) and output else output
    return hidden.detach().cpu() if isinstance(hidden, Tensor) else None


def _close(session: Session, batch: TokenBatch, got: Tensor | None, expected: Tensor | None) -> bool:
    if got is None or expected is None or got.shape != expected.shape:
        return False
    mask = batch.mask.bool()
    got, expected = got.float()[mask], expected.float()[mask]
    allowed = tolerance(session.mode.precision, "attention_implementation").relative
    return bool((got - expected).abs().max() <= allowed * expected.abs().max())  # NaN is no agreement
