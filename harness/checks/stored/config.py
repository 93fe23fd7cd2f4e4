"""The config: it computes what the base's does, fits the tensors, and says the plan that was meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from transformers import GenerationConfig

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.errors import NotChecked
from harness.report.outcomes import FoundFault
from harness.subject.stock import stock_config_object
from harness.subject.subject import MANIFEST_FILE, PRUNED_MODEL_TYPES, Subject, absent_plan
from harness.subject.sublayer_keys import sublayer_of
from pruning import PrunePlan

# Entries of a config that are read by code which changes what is computed, whether its class declares them or not.
_READ_ANYWHERE: Final = (
    "is_causal", "layer_types", "partial_rotary_factor", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "use_bidirectional_attention",
)  # fmt: skip
# Entries that change nothing of what is computed, or that other checks compare: all others are compared.
_OF_NO_CONSEQUENCE: Final = frozenset({
    "architectures", "auto_map", "model_type", "per_layer_config", "quantization_config", "transformers_version",
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "attn_implementation",
    "dtype", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
    "cross_attention_hidden_size", "finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "prefix",
    "task_specific_params", "tokenizer_class", "initializer_range", "use_cache", "return_dict", "output_attentions",
    "output_hidden_states", "use_return_dict", "torchscript", "tf_legacy_loss", "use_bfloat16", "pruned_heads",
    "base_model_tp_plan", "base_model_pp_plan", "max_window_layers", "use_sliding_window",
})  # fmt: skip
# What says that a directory is meant to be loaded, and is no bare state dict.
_BESIDE_A_CONFIG: Final = (MANIFEST_FILE, "*.py", "generation_config.json")
# Read when a config is made, and no longer to be seen in it.
_MEANT_FOR_THE_CLASS: Final = frozenset({"use_sliding_window", "max_window_layers"})
_DTYPE_NAMES: Final = ("dtype", "torch_dtype")  # of transformers 5.x, and before 4.56
_STORED_DTYPE: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def config(subject: Subject) -> Numbers:
    """The config computes what the base's does, is consistent in itself, and fits the stored tensors."""
    own = subject.stored.config
    if own is None:
        if left := [name for name in _BESIDE_A_CONFIG if any(subject.root.glob(name))]:
            raise FaultFound(
                fault(
                    "config", "config-missing", f"config.json is not there, though {listed(left)} is",
                    "without it transformers cannot load the checkpoint",
                    remedy="Prune the base again, or restore config.json with the plan that was meant.",
                )
            )  # fmt: skip
        raise NotChecked("there is no config.json")
    if not own and any(each.id == "config.json-unreadable" for each in subject.stored.faults):
        raise NotChecked("config.json cannot be read, as the check of the files says")
    if not own:
        raise FaultFound(fault("config", "config-empty", "config.json says nothing", remedy="Prune the base again."))
    faults = [*_layer_faults(subject, own), *_rope_conflict(own)]
    if not faults:
        faults = _differences(subject, own)
    faults += _dtype_faults(subject, own) + _quantisation_faults(subject, own)
    if faults:
        raise FaultFound(*faults)
    return None


def plan(subject: Subject) -> Numbers:
    """The plan in config.json, the manifest's, the given one and the absent keys are all the same."""
    if subject.config_error is not None:
        raise FaultFound(_plan_fault("plan-unreadable", f"config.json: {subject.config_error}", subject))
    absent = absent_plan(subject.stored, subject.base)
    declared, faults = subject.declared_plan, []
    own = subject.stored.config or {}
    if declared is None and own.get("model_type") in PRUNED_MODEL_TYPES:
        declared = PrunePlan()  # what that class reads where nothing is said
    if overrides := _overrides(own):
        cause = f"per_layer_config in config.json changes more than what is skipped: {listed(overrides)}"
        raise FaultFound(_plan_fault("more-than-skips", cause, subject))
    # Where single tensors are lost or left over, or everything is, the check of the keys says it better.
    if subject.stored.tensors and _is_another_plan(subject.plan, absent) and declared is None:
        cause = f"{subject.plan_source} says {subject.plan}, but the stored keys amount to {absent}"
        faults.append(_plan_fault("plan-not-carried-out", cause, subject))
    if declared is not None and declared != subject.plan:
        cause = f"config.json says {declared}, but {subject.plan_source} says {subject.plan}"
        name = "another-plan-carried-out" if declared == absent else "plan-differs"
        faults.append(_plan_fault(name, cause, subject, f"the stored keys amount to: {absent}"))
    if faults:
        raise FaultFound(*faults)
    return {"self_attn": len(subject.plan.self_attn), "mlp": len(subject.plan.mlp)}


def _overrides(own: Mapping[str, Any]) -> set[str]:
    """Return what a pruned model's `per_layer_config` says beside skips: transformers applies such overrides."""
    layers = own.get("per_layer_config")
    if own.get("model_type") not in PRUNED_MODEL_TYPES or not isinstance(layers, Mapping):
        return set()
    return {name for layer in layers.values() if isinstance(layer, Mapping) for name in layer if name != "skip"}


def _is_another_plan(meant: PrunePlan, absent: PrunePlan) -> bool:
    return not (meant - absent).is_empty and not (absent - meant).is_empty


def _plan_fault(name: str, cause: str, subject: Subject, *evidence: str) -> FoundFault:
    return fault(
        "plan", name, cause, *evidence,
        remedy="Write the plan that was carried out into per_layer_config of config.json, or prune the base again.",
    )  # fmt: skip


def _layer_faults(subject: Subject, own: Mapping[str, Any]) -> list[FoundFault]:
    count, types = own.get("num_hidden_layers"), own.get("layer_types")
    faults = []
    stored_layers = {sublayer.layer for key in subject.stored.tensors if (sublayer := sublayer_of(key)) is not None}
    expected = None
    if subject.unpruned_config is not None:
        expected = subject.unpruned_config.get("num_hidden_layers")
    elif subject.manifest is not None:
        names = [*subject.manifest["kept"], *(subject.manifest.get("pruned") or {})]
        layers = {sublayer.layer for key in names if (sublayer := sublayer_of(key)) is not None}
        expected = max(layers) + 1 if layers else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        faults.append(_layer_count(f"num_hidden_layers is {count!r}", "it should be a positive number", expected))
    elif expected is not None and count != expected:
        faults.append(_layer_count(f"num_hidden_layers is {count}", f"the unpruned model has {expected}", expected))
    elif stored_layers and max(stored_layers) >= count:
        seen = max(stored_layers)
        faults.append(_layer_count(f"num_hidden_layers is {count}", f"layer {seen} has stored tensors", seen + 1))
    if isinstance(types, list) and isinstance(count, int) and len(types) != count and not faults:
        faults.append(
            fault(
                "config", "stale-layer-types",
                f"layer_types has {len(types)} entries, but num_hidden_layers is {count}",
                remedy="Give layer_types one entry a layer, as the base has it.",
            )
        )  # fmt: skip
    return faults


def _layer_count(cause: str, evidence: str, expected: int | None) -> FoundFault:
    return fault(
        "config", "wrong-layer-count", f"{cause}, but {evidence}",
        "layers beyond the count are left out in silence",
        remedy=f"Set num_hidden_layers to {expected}: pruning leaves the number of layers as it is.",
    )  # fmt: skip


def _rope_conflict(own: Mapping[str, Any]) -> list[FoundFault]:
    parameters = own.get("rope_parameters")
    if not isinstance(parameters, Mapping) or "rope_theta" not in own or "rope_theta" not in parameters:
        return []
    if own["rope_theta"] == parameters["rope_theta"]:
        return []
    return [
        fault(
            "config", "rope-forms-in-conflict",
            f"rope_theta is {own['rope_theta']}, but rope_parameters has {parameters['rope_theta']}",
            "which of the two counts depends on the version of transformers",
            remedy="Keep one form, with the base's value.",
        )
    ]  # fmt: skip


def _differences(subject: Subject, own: Mapping[str, Any]) -> list[FoundFault]:
    """Return a fault for what is computed otherwise than by the unpruned config, as transformers reads both."""
    if subject.unpruned_config is None:
        return []
    try:
        names = differing_entries(own, subject.config)
    except ValueError as error:
        return [fault("config", "config-refused", str(error), remedy="Restore config.json from the base.")]
    whose = "the base's" if subject.base is not None else f"the base's, which {MANIFEST_FILE} has"
    faults = []
    if "tie_word_embeddings" in names:
        faults.append(_difference("tied-head", whose, {"tie_word_embeddings": names.pop("tie_word_embeddings")}))
    if names:
        faults.append(_difference("config", whose, names))
    return faults


def differing_entries(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what one config and the base's have otherwise, of what is computed: entry -> the one's, the base's.

    Raises ValueError, in one line, if the stock config refuses a value.
    """
    known = computing_entries()
    ours, theirs = (
        stock_config_object({name: value for name, value in config.items() if name in known | _MEANT_FOR_THE_CLASS})
        for config in (own, base)
    )
    left, right = ours.to_dict(), theirs.to_dict()
    return {
        name: (left.get(name), right.get(name))
        for name in sorted(known)
        if _plain(left.get(name)) != _plain(right.get(name))
    }


def computing_entries() -> set[str]:
    """Return the entries of a config that change what the stock model computes."""
    every = {*stock_config_object({}).to_dict(), *_READ_ANYWHERE}
    return every - _OF_NO_CONSEQUENCE - set(GenerationConfig().to_dict())


def _plain(value: Any) -> Any:
    """Return a config value without what versions write differently: a default that is left out."""
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if item is not None}
    return value


def _difference(family: str, whose: str, values: Mapping[str, tuple[Any, Any]]) -> FoundFault:
    names = list(values)
    return fault(
        family, f"{names[0].replace('_', '-')}-differs",
        f"config.json computes something else than {whose}: {', '.join(names)}",
        *(f"{name}={got!r}, but should be {should!r}" for name, (got, should) in values.items()),
        remedy=f"Set {listed(names)} in config.json as the base has it.",
    )  # fmt: skip


def _dtype_faults(subject: Subject, own: Mapping[str, Any]) -> list[FoundFault]:
    if subject.unpruned_config is None:
        return []
    got = next((own[name] for name in _DTYPE_NAMES if own.get(name) is not None), None)
    unpruned = subject.unpruned_config
    should = next((unpruned[name] for name in _DTYPE_NAMES if unpruned.get(name)), None)
    if got == should or should is None:
        return []
    stored = sorted({_STORED_DTYPE.get(tensor.dtype, tensor.dtype) for tensor in subject.stored.tensors.values()})
    if got is not None and stored == [got]:
        return []  # converted as a whole, which the check of the bytes says
    return [
        fault(
            "precision", "dtype-lost" if got is None else "dtype-differs",
            f"dtype in config.json is {got!r}, but the base's is {should!r}",
            f"the tensors are stored in {', '.join(stored)}",
            remedy=f"Set dtype to {should!r}: else the model is loaded in another precision, with other memory.",
        )
    ]  # fmt: skip


def _quantisation_faults(subject: Subject, own: Mapping[str, Any]) -> list[FoundFault]:
    quantised = own.get("quantization_config")
    base_quantised = (subject.unpruned_config or {}).get("quantization_config")
    if quantised is None or base_quantised:
        return []
    return [
        fault(
            "quantisation", "prequantised-then-pruned",
            "the checkpoint is stored quantised (quantization_config in config.json), and the base is not",
            f"quant_method={quantised.get('quant_method') if isinstance(quantised, Mapping) else quantised!r}",
            "a quantiser looks for the weights of pruned modules as well",
            remedy="Prune the unquantised base, and quantise when the pruned checkpoint is loaded.",
        )
    ]  # fmt: skip
