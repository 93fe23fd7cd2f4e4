"""The load: its report is the one predicted, weights are where and what was asked for, resident equals stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.checks.explain.causes import (
    another_class,
    buffers_wrong,
    float16_chosen,
    is_stock,
    resident_wrong,
    stock_class,
)
from harness.checks.explain.logits import load_failed
from harness.checks.explain.offloaded import offloaded_names
from harness.checks.stored.config import differing_entries
from harness.errors import NotChecked
from harness.models.parts import (
    adapter_names,
    buffer_differences,
    resident_differences,
    skips_what_is_pruned,
    unwrapped,
)
from harness.models.session import Session, missing_but_kept
from harness.report.outcomes import FoundFault
from harness.subject.stored import canonical_key
from harness.subject.subject import is_under
from harness.subject.sublayer_keys import sublayer_of

from .candidate import require_mode


def load(session: Session) -> Numbers:
    """The model loads, by a class that can skip, with no key missing, left over or of another shape but the pruned."""
    try:
        model = session.model
    except NotChecked:
        if session.load_error is not None:
            if session.mode.name != "plain-float32":
                require_mode(session)
            raise FaultFound(load_failed(session, session.load_error)) from session.load_error
        raise
    subject = session.subject
    report = session.loading_report or {}
    # A stock model that was loaded, and then pruned in memory, is known by what it calls.
    pruned_in_memory = session.is_given and is_stock(unwrapped(model)) and skips_what_is_pruned(session)
    if is_stock(unwrapped(model)) and not subject.plan.is_empty and not pruned_in_memory:
        raise FaultFound(stock_class(session))
    if session.is_given and not pruned_in_memory and (another := another_class(session)) is not None:
        raise FaultFound(another)
    missing = missing_but_kept(subject, report.get("missing_keys", []))
    unexpected = [key for key in report.get("unexpected_keys", []) if canonical_key(key) not in subject.optional_keys]
    faults = []
    if unexpected and (homeless := _homeless_sublayers(session, unexpected)) is not None:
        raise FaultFound(homeless)
    if session.is_given:
        if model.dtype == torch.float16 and not _is_float16_stored(session):
            faults.append(float16_chosen(session))
        faults += _config_changed(session)
    if missing:
        known = set(subject.unpruned_keys) | {"lm_head.weight"}
        foreign = [key for key in missing if canonical_key(key) not in known]
        heads = [key for key in missing if key.endswith("lm_head.weight")]
        family = "gate" if len(foreign) == len(missing) else "tied-head" if len(heads) == len(missing) else "keys"
        faults.append(_report_fault(family, "missing", missing, "they are initialised at random"))
    for kind, keys in (("unexpected", unexpected), ("mismatched", report.get("mismatched_keys", []))):
        if keys:
            faults.append(_report_fault("keys", kind, keys, f"the loading report calls them {kind}"))
    if faults:
        raise FaultFound(*faults)
    random = [key for key in report.get("missing_keys", []) if is_under(canonical_key(key), subject.plan)]
    if random:
        subject.findings.append(
            f"{session.mode.name}: {len(random)} tensors of pruned sub-layers are built and filled at random; "
            "they cost memory, for nothing"
        )
    return {"missing": len(random)}


def _homeless_sublayers(session: Session, unexpected: list[str]) -> FoundFault | None:
    """Return a fault if what is left over is kept sub-layers as a whole: the class skips others than the plan."""
    canonical = {canonical_key(key) for key in unexpected}
    sublayers = {sublayer for key in canonical if (sublayer := sublayer_of(key)) is not None}
    theirs = {key for key in session.subject.stored.tensors if sublayer_of(key) in sublayers}
    if theirs != canonical:
        return None
    names = {str(each) for each in sublayers}
    return fault(
        "plan", "kept-sub-layers-have-no-place",
        f"{type(session.model).__name__} has no place for {len(names)} kept sub-layer(s): {listed(names)}",
        f"the plan ({session.subject.plan}, from {session.subject.plan_source}) keeps them, and they are stored",
        remedy="Have the class skip exactly what the plan prunes.",
    )  # fmt: skip


def _config_changed(session: Session) -> list[FoundFault]:
    """Return a fault if the model that was loaded computes by another config than the one that is stored."""
    try:
        values = differing_entries(session.model.config.to_dict(), session.subject.config)
    except (ValueError, AttributeError):  # a config of another kind, which what it computes is judged by
        return []
    stored = session.subject.stored.config or {}
    changed = {name: pair for name, pair in values.items() if name not in stored or stored[name] != pair[0]}
    if not changed:
        return []
    return [
        fault(
            "config", "config-changed-by-the-load",
            f"the loaded model's config is not the stored one: {listed(set(changed))}",
            *(f"{name}={got!r}, but should be {should!r}" for name, (got, should) in changed.items()),
            remedy="Load without keyword arguments that change the config.",
        )
    ]  # fmt: skip


def placement(session: Session) -> Numbers:
    """Weights lie on the devices, and have the dtype, that were asked for."""
    model: Any = unwrapped(session.model)
    wanted = session.arguments("candidate")["dtype"]
    other = {
        name
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and parameter.dtype != wanted and not session.mode.is_quantised
    }
    if other and not session.is_given:
        raise FaultFound(
            fault(
                "precision", "another-dtype", f"{len(other)} parameter(s) are not {wanted}: {listed(other)}",
                remedy="Have the class take the dtype that it is loaded with.",
            )
        )  # fmt: skip
    nowhere = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    offloaded = "disk" in set(getattr(model, "hf_device_map", {}).values()) or bool(nowhere & offloaded_names(model))
    if adapters := nowhere.intersection(adapter_names(model)):
        raise FaultFound(
            fault(
                "adapter", "adapter-without-values",
                f"{len(adapters)} parameter(s) of an adapter hold no values: {listed(adapters)}",
                "they adapt modules that are pruned, which never run",
                remedy="Leave pruned modules out: LoraConfig(exclude_modules=model.pruned_linear_names()).",
            )
        )  # fmt: skip
    if nowhere and not offloaded:
        raise FaultFound(
            fault(
                "offload", "weights-nowhere", f"{len(nowhere)} parameter(s) hold no values: {listed(nowhere)}",
                "they lie on the meta device, though nothing is offloaded",
                remedy="Register no parameter that is not stored.",
            )
        )  # fmt: skip
    if session.mode.is_offloaded and not offloaded and not session.is_given:
        raise NotChecked("nothing was offloaded: what would lie on the disk is pruned")
    return {"offloaded": len(nowhere)}


def quantised_modules(session: Session) -> Numbers:
    """The kept linear modules that are quantised are those of the equally quantised reference."""
    if not session.mode.is_quantised:
        raise NotChecked("nothing is quantised in this mode")
    ours = {name: type(module).__name__ for name, module in _linears(unwrapped(session.model))}
    theirs = {name: type(module).__name__ for name, module in _linears(session.reference)}
    kept = {name for name in theirs if not is_under(f"{canonical_key(name)}.weight", session.subject.plan)}
    left = {name for name in kept & ours.keys() if ours[name] != theirs[name]}
    if left:
        name = min(left)
        raise FaultFound(
            fault(
                "quantisation", "not-quantised",
                f"{len(left)} linear module(s) are not quantised as the reference's: {listed(left)}",
                f"{name} is {ours[name]}, but should be {theirs[name]}",
                remedy="Leave out llm_int8_skip_modules for kept modules, and quantise the whole model in one load.",
            )
        )  # fmt: skip
    _look_for_floats(session, ours, kept)
    floats = sorted(name for name in kept if theirs[name] == "Linear")
    if left_out := [name for name in floats if name != "lm_head"]:
        session.subject.findings.append(
            f"{session.mode.name}: {len(left_out)} kept linear module(s) are not quantised: {listed(left_out)}"
        )
    return {"quantised": len(kept) - len(floats), "not_quantised": len(floats)}


def _look_for_floats(session: Session, ours: dict[str, str], kept: set[str]) -> None:
    """Say that pruned modules hold weights in floating point, which a quantised load was meant to save."""
    modules = dict(_linears(unwrapped(session.model)))
    held = {
        name: sum(
            parameter.numel() * parameter.element_size()
            for parameter in modules[name].parameters()
            if parameter.is_floating_point() and not parameter.is_meta
        )
        for name in ours.keys() - kept
        if is_under(f"{canonical_key(name)}.weight", session.subject.plan)
    }
    held = {name: size for name, size in held.items() if size}
    if not held:
        return
    cause = f"{len(held)} pruned linear module(s) hold {sum(held.values())} bytes of floating-point weights"
    if session.is_given:
        raise FaultFound(
            fault(
                "quantisation", "float-left", f"{cause} in a quantised model", listed(set(held)),
                remedy="Load with a class whose pruned modules hold no parameters, such as prunecheck's.",
            )
        )  # fmt: skip
    session.subject.findings.append(f"{session.mode.name}: {cause}, which never run")


def _linears(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def resident_values(session: Session) -> Numbers:
    """Every resident parameter holds the stored tensor's values, in the dtype that was asked for."""
    wrong, compared = resident_differences(session)
    if wrong:
        raise FaultFound(resident_wrong(session, wrong, compared))
    if not compared:
        raise NotChecked("no parameter of this mode can be compared: all are quantised or offloaded")
    return {"compared": compared}


def buffers(session: Session) -> Numbers:
    """Buffers that are not stored hold what a fresh computation gives."""
    wrong, compared = buffer_differences(session)
    if wrong:
        raise FaultFound(buffers_wrong(wrong))
    if not compared:
        raise NotChecked("the model has none of the buffers that the stock model computes")
    return {"compared": compared}


def _is_float16_stored(session: Session) -> bool:
    return any(tensor.dtype == "F16" for tensor in session.subject.stored.tensors.values())


def _report_fault(family: str, kind: str, keys: list[str], evidence: str) -> Any:
    return fault(
        family, f"{kind}-keys", f"{len(keys)} key(s) of the load are {kind}, though the plan does not prune them: "
        f"{listed(keys)}", evidence,
        remedy="Store exactly the kept tensors, under the names and in the shapes of the class that is loaded.",
    )  # fmt: skip
