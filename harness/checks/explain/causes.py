"""Faults that several checks can come upon, each built from what was measured."""

from __future__ import annotations

from typing import Any

import torch

from harness.checks.check import fault, listed
from harness.models.parts import adapter_names, has_adapter, unwrapped
from harness.models.session import Session
from harness.report.outcomes import FoundFault
from harness.subject.checkpoint_code import stale_code
from harness.subject.stored import HEAD


def is_stock(model: Any) -> bool:
    """Whether a model's class is one of transformers itself."""
    return type(unwrapped(model)).__module__.startswith("transformers.models.")


def stock_class(session: Session, *evidence: str) -> FoundFault:
    """Return the fault of a model of a stock class, which runs what is pruned."""
    name, plan = type(session.model).__name__, session.subject.plan
    auto_map = session.subject.code.auto_map
    how = "load with trust_remote_code=True, or with load_pruned" if auto_map else "restore auto_map in config.json"
    # The same cause has another face here: a quantiser meets weights that were never stored.
    family = "quantisation" if session.is_given and session.mode.is_quantised else "class"
    return fault(
        family, "stock-class-built",
        f"the stock {name} was built, which runs the {len(plan.sublayers)} pruned sub-layers "
        "on random weights",
        f"auto_map={dict(auto_map) or None}", *evidence,
        remedy=f"Build the class that skips them: {how}.",
    )  # fmt: skip


def another_class(session: Session, *evidence: str) -> FoundFault | None:
    """Return the fault of a model whose class is not the one that the checkpoint names, or not as its file has it."""
    built, code = type(unwrapped(session.model)), session.subject.code
    named = code.auto_map.get("AutoModelForCausalLM", "").rpartition(".")[2]
    remedy = "Load in a fresh process, or with load_pruned: something there registered, or kept, another class."
    if named and named not in {each.__name__ for each in built.__mro__}:  # a subclass is the class, too
        return fault(
            "class", "other-class-built",
            f"{built.__module__}.{built.__qualname__} was built, but config.json names {named}",
            *evidence, remedy=remedy,
        )  # fmt: skip
    stale = stale_code(built, session.subject.root)
    if stale is None:
        return None
    return fault(
        "class", "stale-remote-code",
        f"the class {built.__name__} is not that of the checkpoint's files: in memory, {stale} is another",
        *evidence, remedy=remedy,
    )  # fmt: skip


def float16(session: Session, *evidence: str) -> FoundFault | None:
    """Return the fault of a model that runs in float16, None if it does not."""
    if getattr(session.model, "dtype", None) != torch.float16:
        return None
    return fault(
        "precision", "float16-overflow",
        "the model runs in float16, whose largest number, 65504, the hidden states of a bfloat16 model exceed",
        *evidence, remedy="Load with dtype=torch.bfloat16, or 'auto'.",
    )  # fmt: skip


def float16_chosen(session: Session) -> FoundFault:
    """Return the fault of a model that was loaded in float16 though it is stored in another precision."""
    stored = sorted({tensor.dtype for tensor in session.subject.stored.tensors.values()})
    return fault(
        "precision", "float16-chosen",
        f"the model was loaded in float16, and is stored in {', '.join(stored)}",
        "float16 ends at 65504, which hidden states of a bfloat16 model exceed: then all that follows is NaN",
        remedy="Load with dtype=torch.bfloat16, or 'auto'.",
    )  # fmt: skip


def adapter_attached(session: Session, *evidence: str) -> FoundFault:
    """Return the fault of an adapter that changes what is computed."""
    names = adapter_names(session.model)
    return fault(
        "adapter", "adapter-attached", f"an adapter of {len(names)} parameters changes the logits", listed(names),
        *evidence, remedy="Judge the model without its adapter; attach none to a pruned module.",
    )  # fmt: skip


def learns_a_prompt(session: Session) -> bool:
    """Whether an adapter puts learned tokens before the prompt, or into the cache (peft 0.21.2, peft_model.py)."""
    return bool(getattr(getattr(session.model, "active_peft_config", None), "is_prompt_learning", False))


def resident_wrong(session: Session, wrong: dict[str, str], compared: int, *evidence: str) -> FoundFault:
    """Return the fault of parameters that do not hold what is stored."""
    first = min(wrong)
    own = {key for key, why in wrong.items() if "initialised by the code" in why}
    seen = (f"{compared} parameters were compared", *evidence)
    if (overflow := float16(session, *evidence)) is not None:
        return overflow
    if has_adapter(session.model):
        return fault(
            "adapter", "adapter-changed-the-model",
            f"{len(wrong)} parameter(s) beside those of an adapter are not what is stored: {first} {wrong[first]}",
            *seen, "an adapter is attached, or was merged into the model",
            remedy="Judge the model before it is adapted; unmerge the adapter, and train no bias of the model.",
        )  # fmt: skip
    if set(wrong) == {HEAD}:
        return fault(
            "tied-head", "head-not-tied", f"{HEAD} {wrong[HEAD]}", *evidence,
            remedy="Declare _tied_weights_keys as the stock class of this version of transformers does.",
        )  # fmt: skip
    if own == set(wrong):
        return fault(
            "gate", "parameter-not-stored",
            f"{len(own)} parameter(s) of the model are not stored, and not part of what is pruned: {listed(own)}",
            *evidence, remedy="Store every parameter that runs, or make it no parameter: derive it from the config.",
        )  # fmt: skip
    if session.mode.is_offloaded:
        return fault(
            "offload", "offloaded-differs",
            f"{len(wrong)} parameter(s) of the offloaded model are not what the base has: {first} {wrong[first]}",
            *seen, remedy="Load again: the files that weights are read from were replaced after the load.",
        )  # fmt: skip
    if all("a part of its elements" in why for why in wrong.values()):
        return fault(
            "offload", "bytes-corrupted",
            f"{len(wrong)} resident parameter(s) were changed in parts: {first} {wrong[first]}", *seen,
            "a load fills a tensor as a whole: these bytes changed on their way to the device, or afterwards",
            remedy="Load without copies between devices, and compare again.",
        )  # fmt: skip
    return fault(
        "keys", "resident-differs",
        f"{len(wrong)} resident parameter(s) are not what is stored: {first} {wrong[first]}", *seen, listed(set(wrong)),
        remedy="Load the files as they are: without ignore_mismatched_sizes, and change no weight after the load.",
    )  # fmt: skip


def buffers_wrong(wrong: dict[str, str], *evidence: str) -> FoundFault:
    """Return the fault of buffers that hold other values than freshly computed ones."""
    first = min(wrong)
    return fault(
        "buffers", "buffers-differ", f"{len(wrong)} buffer(s) are wrong: {first} {wrong[first]}", *evidence,
        remedy="Compute such buffers anew after the load (_init_weights), since they are not stored.",
    )  # fmt: skip
