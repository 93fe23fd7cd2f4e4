"""What runs: whether passes repeat, which parts they call, whether pruned modules matter, whether two loads agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

import torch
from torch import Tensor, nn

from harness.checks.check import FaultFound, Numbers, fault
from harness.checks.explain.calls import call_faults, named
from harness.errors import NotChecked
from harness.models.batches import BATCHES
from harness.models.forward import (
    Part,
    TokenBatch,
    cached_logits,
    calls,
    decoder_layers,
    holds_values,
    module_of,
    parts_of,
    uncached_logits,
)
from harness.models.parts import pruned_parts, running_sublayers
from harness.models.session import Session
from harness.reference.tolerances import assert_logits_close
from harness.report.outcomes import FoundFault
from harness.subject.sublayer_keys import Norm
from harness.system.whose_error import ignoring_errors_of
from pruning import SubLayer

from .candidate import candidate_logits, candidate_runs, is_of_the_candidate
from .repetition import compares_passes, not_repeatable

MATTERS_CACHED: Final = "pruned-modules-matter-cached"


def repeatable(session: Session) -> Numbers:
    """The same tokens give the same logits, at once and after others were computed."""
    try:
        found = not_repeatable(session)
    except Exception as error:
        if not is_of_the_candidate(session, error):
            raise
        raise NotChecked(f"a forward pass raises {type(error).__name__}, which the next checks tell") from None
    if found is not None:
        raise FaultFound(found)
    return None


@compares_passes
def called_parts(session: Session) -> Numbers:
    """A forward pass calls every kept sub-layer with its norm; a pruned one may be called if it adds nothing."""
    expected_layers = int(session.subject.config["num_hidden_layers"])
    layers = decoder_layers(session.model)
    if not layers:
        raise NotChecked("the model has no decoder layers of a known name to look at")
    absent = set(range(len(layers), expected_layers))  # the last ones may be left out where nothing of them is kept
    if len(layers) > expected_layers or not absent.issubset(session.subject.plan.whole_layers):
        raise FaultFound(_layers_missing(len(layers), expected_layers))
    there = {part for part, _ in parts_of(layers)}
    batch = BATCHES["random"](session)
    with calls(session.model) as called:
        candidate_logits(session, batch)
    pruned = pruned_parts(session)
    running = {part for part in called & pruned if isinstance(part, SubLayer)}
    norms = {part for part in called & pruned if isinstance(part, Norm)}
    effective = running_sublayers(session.model, running, batch) if running else set()
    # What holds nothing and puts out zeros is the place of something pruned, which the stock layer calls with its norm.
    places = {each for each in running - effective if not holds_values(module_of(layers, each))}
    running -= places
    norms -= set(map(Norm, places))
    if running and (not effective or _without_effect(session, effective, batch)):
        session.subject.findings.append(
            f"{len(running)} pruned sub-layer(s) run, and what they give is thrown away: {named(running)}"
        )
        norms -= set(map(Norm, running))
        running = set()
    wrong: set[Part] = {*running, *(norm for norm in norms if _matters(session, norm))}
    idle = {part for part in there - pruned - called if not _matters(session, part)}
    if wrong or idle:
        raise FaultFound(*call_faults(session, wrong, idle, batch))
    if norms:
        session.subject.findings.append(
            f"{len(norms)} norm(s) of pruned sub-layers run, without effect: {named(norms)}"
        )
    return {"called": len(called), "pruned": len(pruned)}


@compares_passes
def poison(session: Session) -> Numbers:
    """With NaN in everything that belongs to a pruned sub-layer, no logit changes."""
    pruned = pruned_parts(session)
    if not pruned:
        raise NotChecked("nothing is pruned")
    if session.mode.is_offloaded or session.mode.is_quantised:
        raise NotChecked("weights that are offloaded or quantised cannot be poisoned in place")
    if any(each.layer >= len(decoder_layers(session.model)) for each in session.subject.plan):
        raise NotChecked("the model lacks layers that the plan prunes")
    batch = BATCHES["several"](session)
    before = candidate_logits(session, batch)
    if not before.isfinite().all():
        with _filled(session.model, pruned, 0.0) as count:
            if not uncached_logits(session.model, batch).isfinite().all():
                raise NotChecked("the logits are not finite, whatever is poisoned")
        raise FaultFound(
            _matters_fault(
                "pruned-modules-matter", "", "with zeros in them NaN is gone", f"{count} tensors were filled"
            )
        )
    before_cached = _stepwise(session, batch)
    with _poisoned(session.model, pruned) as count:
        with candidate_runs(session):
            after = uncached_logits(session.model, batch)
        after_cached = None if before_cached is None else _stepwise(session, batch)
    if count == 0:
        return {"poisoned": 0}  # hollow modules hold nothing: there is no memory that could matter
    how = f"{count} tensors were poisoned, of {named(pruned)}"
    if changed := _changed(session, before, after):
        raise FaultFound(_matters_fault("pruned-modules-matter", "", changed, how))
    if before_cached is not None and (changed := _changed(session, before_cached, after_cached)):
        raise FaultFound(_matters_fault(MATTERS_CACHED, " of steps through a cache", changed, how))
    return {"poisoned": count}


def _changed(session: Session, before: Tensor, after: Tensor | None) -> str | None:
    """Say how logits changed; None if they did not."""
    if after is None:
        return "a pass through a cache raises an error"
    try:
        assert_logits_close(after, before, dtype=session.mode.precision, operation="reference", context="poisoned")
    except AssertionError as error:
        return str(error)
    return None


def _matters_fault(name: str, where: str, changed: str, how: str) -> FoundFault:
    return fault(
        "gate", name,
        f"values of pruned modules reach the logits{where}: with others in them the output changes", changed, how,
        remedy="Leave a pruned sub-layer out of the forward pass: a product with zero is no skip.",
    )  # fmt: skip


@compares_passes
def two_loads(session: Session) -> Numbers:
    """A second load gives the same logits, bit for bit."""
    batch = BATCHES["random"](session)
    first = candidate_logits(session, batch)
    model = session.load_again()
    with candidate_runs(session, model=model):
        second = uncached_logits(model, batch)
    try:
        assert_logits_close(
            second, first, dtype=session.mode.precision, operation="reference", context="the second load of two"
        )
    except AssertionError as error:
        raise FaultFound(
            fault(
                "keys", "loads-disagree", "two loads of the checkpoint compute different logits", str(error),
                "something that runs is not filled from the files",
                remedy="Look for keys that the loading report calls missing, and for memory that is never initialised.",
            )
        ) from None  # fmt: skip
    return {"difference": float((first - second).abs().max())}


def _stepwise(session: Session, batch: TokenBatch) -> Tensor | None:
    """Return the logits of single steps through a cache; None if they raise, which the checks of the cache tell."""
    width = batch.ids.shape[1]
    # A ValueError where the output holds no cache.
    with ignoring_errors_of(session.model), suppress(ValueError):
        return cached_logits(session.model, batch, None, (width - 2, 1, 1))[0]
    return None


def _without_effect(session: Session, sublayers: set[SubLayer], batch: TokenBatch) -> bool:
    """Whether what these sub-layers compute does not reach the logits, as long as it is finite.

    Their weights are set to one value, and to another: memory that no file fills may hold anything, NaN too.
    """
    if session.mode.is_offloaded or session.mode.is_quantised:
        return False
    outputs = []
    for value in (0.125, -0.25):
        with _filled(session.model, sublayers, value) as count, candidate_runs(session):
            outputs.append(uncached_logits(session.model, batch))
    return count > 0 and torch.equal(*outputs)


def _matters(session: Session, part: Part) -> bool:
    """Whether the values of a part of a decoder layer reach the logits; assumed where it cannot be tried.

    A part may run without being called as a module is: by its `forward`, or fused with another.
    """
    if session.mode.is_offloaded or session.mode.is_quantised:
        return True
    batch = BATCHES["random"](session)
    before = candidate_logits(session, batch)
    with _poisoned(session.model, {part}):
        after = uncached_logits(session.model, batch)
    return not torch.equal(before, after)


def _poisoned(model: nn.Module, parts: Collection[Part]) -> AbstractContextManager[int]:
    return _filled(model, parts, float("nan"))


@contextmanager
def _filled(model: nn.Module, parts: Collection[Part], value: float) -> Iterator[int]:
    """Fill the parameters and buffers of these parts within the `with`; yields how many there were."""
    layers = decoder_layers(model)
    modules = [module_of(layers, part) for part in parts]
    tensors: list[Any] = [
        tensor
        for module in modules
        if module is not None
        for tensor in (*module.parameters(), *module.buffers())
        if not tensor.is_meta and tensor.is_floating_point()
    ]
    before = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = torch.full_like(tensor.data, value)
        yield len(tensors)
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data


def _layers_missing(got: int, should: int) -> Any:
    return fault(
        "config", "wrong-layer-count", f"the model has {got} decoder layers, but should have {should}",
        remedy="Keep every layer in the module tree, with its number: pruning is a property of the saved weights.",
    )  # fmt: skip
