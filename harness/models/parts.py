"""What a loaded model holds and does, beside what it should: the facts that checks and explanations rest on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from harness.reference.tolerances import tolerance
from harness.subject.stock import empty_stock_model
from harness.subject.stored import EMBEDDING, HEAD, canonical_key, tensors_file_by_file
from harness.subject.subject import is_under
from harness.subject.sublayer_keys import NORM_OF, Norm
from pruning import SubLayer

from .batches import random_ids
from .buffers import own_buffer_differences
from .forward import (
    Part,
    TokenBatch,
    calls,
    decoder_layers,
    layer_outputs,
    part_of,
    silent_sublayers,
    uncached_logits,
    unpadded,
)
from .session import Session, first_line

# What wrappers put into the names of parameters: peft, torch.compile, torch's checkpointing and its data parallelism.
_WRAPPERS: Final = re.compile(
    r"base_layer\.|original_module\.|_orig_mod\.|_checkpoint_wrapped_module\.|_fsdp_wrapped_module\.|^module\."
)
_ADAPTER: Final = ("lora_", "adapter", "modules_to_save")
_ADAPTED: Final = ("base_layer.", "original_module.")  # what a module of an adapter library wraps


def unwrapped(model: Any) -> Any:
    """Return the model inside the wrappers of torch.compile and of adapter libraries."""
    model = getattr(model, "_orig_mod", model)
    get_base_model = getattr(model, "get_base_model", None)
    return get_base_model() if callable(get_base_model) else model


def resident_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model by canonical key, adapters left out."""
    adapters = set(adapter_names(model))
    return {
        canonical_key(_WRAPPERS.sub("", name)): parameter
        for name, parameter in unwrapped(model).named_parameters(remove_duplicate=False)
        if name not in adapters
    }


def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that an adapter library added, as the model and as what it wraps has them."""
    named: dict[str, None] = {}
    for each in (model, unwrapped(model)):
        layers = [name for name, module in each.named_modules() if _is_of_peft(module) and not _holds_a_model(module)]
        for name, _ in each.named_parameters(remove_duplicate=False):
            inner = [name[len(layer) + 1 :] for layer in layers if name.startswith(f"{layer}.")]
            if any(word in name for word in _ADAPTER) or any(not rest.startswith(_ADAPTED) for rest in inner):
                named[name] = None
    return list(named)


def has_adapter(model: nn.Module) -> bool:
    """Whether an adapter library has its hands in a model: its configuration, modules or parameters are there."""
    return (
        any(getattr(each, "peft_config", None) for each in (model, unwrapped(model)))
        or any(_is_of_peft(module) for module in model.modules())
        or bool(adapter_names(model))
    )


def _is_of_peft(module: nn.Module) -> bool:
    return type(module).__module__.startswith("peft.")


def _holds_a_model(module: nn.Module) -> bool:
    return any(isinstance(part, PreTrainedModel) for part in module.modules())


def resident_differences(session: Session) -> tuple[dict[str, str], int]:
    """Return what is wrong with resident parameters, by key, and how many were compared.

    A parameter should hold the stored tensor's values in the dtype that was asked for. What is quantised, offloaded
    or pruned is left out.
    """
    subject, resident = session.subject, resident_parameters(session.model)
    comparable = {
        key: parameter
        for key, parameter in resident.items()
        if not parameter.is_meta and parameter.dtype.is_floating_point and not is_under(key, subject.plan)
        and not hasattr(parameter, "quant_state")
    }  # fmt: skip
    wrong, compared = {}, 0
    stored = dict(subject.stored.tensors)
    for key in comparable.keys() & stored.keys() & {HEAD} if resident_is_tied(session) else set():
        del stored[key]  # a tied head that is stored too: the embedding's values count
    for key, values in tensors_file_by_file({key: tensor for key, tensor in stored.items() if key in comparable}):
        compared += 1
        parameter = comparable[key].detach().cpu()
        if parameter.shape != values.shape:
            wrong[key] = f"has shape {list(parameter.shape)}, but {list(values.shape)} is stored"
        elif not equal_values(parameter, expected := values.to(parameter.dtype)):
            share = float((parameter != expected).float().mean())
            wrong[key] = "differs from what is stored" + (
                f" in a part of its elements ({share:.1%})" if share < 0.9 else ""
            )
    report = session.loading_report or {}
    # Where nothing was missing or left over, what has other names than the files was loaded under a mapping of names.
    mapped = bool(report) and not report.get("unexpected_keys")
    for key in sorted(subject.expected_keys - subject.optional_keys - {HEAD}):
        if key not in resident and not session.mode.is_quantised and not mapped:
            wrong[key] = "is not there"
    if HEAD in comparable and HEAD not in stored:
        embedding = comparable.get(EMBEDDING)
        if embedding is not None and not equal_values(comparable[HEAD].detach().cpu(), embedding.detach().cpu()):
            wrong[HEAD] = "is not stored, and not the embedding either"
    initialised = set(map(canonical_key, report.get("missing_keys", []))) if mapped else comparable.keys()
    for key in (comparable.keys() & initialised) - stored.keys() - subject.optional_keys - {HEAD}:
        wrong[key] = "is not stored: it was initialised by the code"
    return wrong, compared


def skips_what_is_pruned(session: Session) -> bool:
    """Whether an uncached pass calls none of the pruned sub-layers."""
    return not pruned_that_run(session, unpadded(random_ids(session.subject.config, 1, 4)))


def code_error(session: Session) -> str | None:
    """Return the error, in one line, of importing the class that the checkpoint names; None if it can be imported."""
    reference = session.subject.code.auto_map.get("AutoModelForCausalLM")
    if reference is None or "--" in reference:
        return None
    try:
        get_class_from_dynamic_module(reference, str(session.subject.root))
    except Exception as error:  # whatever a checkpoint's code raises
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def tied_keys_declared_otherwise(session: Session) -> str | None:
    """Return how the checkpoint's class declares its tied keys, if that is of another type than the stock class's."""
    reference = session.subject.code.auto_map.get("AutoModelForCausalLM")
    if reference is None or "--" in reference:
        return None
    try:
        model_class = get_class_from_dynamic_module(reference, str(session.subject.root))
    except Exception:  # whatever its import raises, which is why it does not load
        return None
    declared = getattr(model_class, "_tied_weights_keys", None)
    stock = type(empty_stock_model(session.subject.config))._tied_weights_keys
    return repr(declared) if type(declared) is not type(stock) else None


def resident_is_tied(session: Session) -> bool:
    """Whether the checkpoint's config ties the head to the embedding."""
    return bool((session.subject.stored.config or session.subject.config).get("tie_word_embeddings", False))


def buffer_differences(session: Session) -> tuple[dict[str, str], int]:
    """Return what is wrong with buffers, by name, and how many were compared with freshly computed ones.

    Those that the stock model has are compared with its own. What else the code keeps without storing it is compared
    with what its class computes when it is built, and wrong if that makes other logits.
    """
    fresh = _fresh_buffers(session.subject.config)
    wrong, compared = {}, 0
    for name, buffer in unwrapped(session.model).named_buffers():
        if name in fresh:
            compared += 1
            if why := _buffer_is_wrong(buffer, fresh[name]):
                wrong[name] = why
    own = own_buffer_differences(session, set(fresh))
    return wrong | own, compared + len(own)


def _buffer_is_wrong(buffer: Tensor, fresh: Tensor) -> str | None:
    if buffer.is_meta:
        return "holds no values (meta device)"
    if buffer.shape != fresh.shape:
        return f"has shape {list(buffer.shape)}, but should be {list(fresh.shape)}"
    if fresh.is_floating_point() and torch.finfo(buffer.dtype).eps > torch.finfo(fresh.dtype).eps:
        return f"is {buffer.dtype}, though it is computed in {fresh.dtype}, whose digits are lost"
    values, expected = buffer.detach().cpu().double(), fresh.detach().cpu().double()
    if torch.allclose(values, expected, rtol=1e-5, atol=0):
        return None
    return f"differs from freshly computed values by up to {float((values - expected).abs().max()):.3g}"


def _fresh_buffers(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the buffers of the stock model by name, each computed by a new instance of its module."""
    model = empty_stock_model(config)
    fresh: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if module._buffers:
            instance: Any = type(module)(config=model.config)
            fresh |= {f"{name}.{key}": value for key, value in instance.named_buffers() if value is not None}
    return fresh


def pruned_parts(session: Session) -> set[Part]:
    """Return the parts of decoder layers that should not run: pruned sub-layers and the norms in front of them."""
    return {part for each in session.subject.plan for part in (each, Norm(each))}


def pruned_that_run(session: Session, batch: TokenBatch) -> set[SubLayer]:
    """Return the pruned sub-layers that an uncached pass calls, and that put out more than zeros."""
    return running_sublayers(session.model, session.subject.plan.sublayers, batch)


def running_sublayers(model: nn.Module, sublayers: Collection[SubLayer], batch: TokenBatch) -> set[SubLayer]:
    """Return those of `sublayers` that an uncached pass calls, and that put out more than zeros."""
    with calls(model) as called, silent_sublayers(model, sublayers) as silent:
        uncached_logits(model, batch)
    return {each for each in sublayers if each in called and each not in silent}


def first_diverging_layer(session: Session, batch: TokenBatch) -> tuple[int, float] | None:
    """Return the first decoder layer whose output leaves the reference's, and how far, relative to its largest value.

    None if all agree within the table, or the layers cannot be compared.
    """
    with layer_outputs(session.model) as got:
        uncached_logits(session.model, batch)
    with session.pruned_reference() as reference, layer_outputs(reference) as expected:
        uncached_logits(reference, batch)
    allowed = tolerance(session.mode.precision, "reference").relative
    mask = batch.mask.bool()
    for layer_idx, (ours, theirs) in enumerate(zip(got, expected, strict=False)):
        if ours.shape != theirs.shape:
            return layer_idx, float("inf")
        difference = float((ours - theirs)[mask].abs().max() / theirs[mask].abs().max())
        if not difference <= allowed:  # NaN is no agreement
            return layer_idx, difference
    return None


def adds_its_norm(session: Session, batch: TokenBatch, layer_idx: int) -> str | None:
    """Return the pruned sub-layer of a layer that computes x + norm(x) in place of x, None if that is not it.

    Both are computed from what goes into the candidate's layer, so nothing before it matters.
    """
    layer: Any = decoder_layers(session.model)[layer_idx]
    plan = session.subject.plan
    seen: dict[str, Tensor] = {}
    names = [kind for kind in NORM_OF if SubLayer(layer_idx, kind) in plan]
    norm = part_of(layer, NORM_OF[names[0]]) if len(names) == 1 else None
    if norm is None:
        return None
    handle = norm.register_forward_hook(lambda module, arguments, output: seen.update(x=arguments[0], y=output))
    try:
        with layer_outputs(session.model) as outputs:
            uncached_logits(session.model, batch)
    finally:
        handle.remove()
    if "x" not in seen or names[0] != "mlp":
        return names[0] if "x" in seen else None
    expected = (seen["x"] + seen["y"]).float().cpu()
    return names[0] if torch.allclose(outputs[layer_idx], expected, rtol=1e-2, atol=1e-4) else None


def meta_attributes(session: Session) -> list[str]:
    """Return the names of tensors without values that kept modules hold as plain attributes."""
    found = []
    pruned = {str(part) for part in pruned_parts(session)}
    for name, module in unwrapped(session.model).named_modules():
        if any(f".{part}." in f".{name}." for part in pruned):
            continue
        found += [f"{name}.{key}" for key, value in vars(module).items() if isinstance(value, Tensor) and value.is_meta]
    return found


def equal_values(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN being equal to NaN."""
    return torch.equal(left, right) or bool(((left == right) | (left.isnan() & right.isnan())).all())
