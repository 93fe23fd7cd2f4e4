"""Faults in `config.json`: the plan, the class, the rotary base, the precision; the weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.faults.fault import Fault, Plant
from harness.faults.planting.checkpoint_files import (
    Json,
    Plan,
    config_of,
    copy_checkpoint,
    edit_config,
    plan_of,
    set_plan,
)
from harness.faults.planting.conditions import (
    all_of,
    config_says,
    last_layer_kept,
    own_code,
    several_layers,
    something_kept,
    something_pruned,
    transformers_before,
    transformers_from,
    untied,
)

_STOCK_ROPE_THETA = 10000.0  # what transformers falls back to


def _edit(change: Callable[[Json], None]) -> Plant:
    """Plant by changing a copy's config in place."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        edit_config(destination, change)

    return plant


def _edit_plan(change: Callable[[Plan, int], Plan]) -> Plant:
    """Plant by giving a copy's config another plan, made from the plan and the number of layers."""

    def change_config(config: Json) -> None:
        set_plan(config, *change(plan_of(config), config["num_hidden_layers"]))

    return _edit(change_config)


def become_stock(config: Json) -> None:
    """Make the config name the stock class and no code."""
    config.pop("auto_map", None)
    config.update(model_type="qwen3", architectures=["Qwen3ForCausalLM"])


def _complement(plan: Plan, layers: int) -> Plan:
    self_attn, mlp = plan
    every = set(range(layers))
    return every - self_attn, every - mlp


def _shifted(plan: Plan, layers: int) -> Plan:
    self_attn, mlp = plan
    return {index + 1 for index in self_attn}, {index + 1 for index in mlp}


def _swapped(plan: Plan, layers: int) -> Plan:
    self_attn, mlp = plan
    return mlp, self_attn


def _one_too_many(plan: Plan, layers: int) -> Plan:
    self_attn, mlp = plan
    kept = sorted(set(range(layers)) - mlp)
    if kept:
        return self_attn, mlp | {kept[-1]}
    return self_attn | {max(set(range(layers)) - self_attn)}, mlp


def _swap_matters(checkpoint: Path) -> str | None:
    self_attn, mlp = plan_of(config_of(checkpoint))
    return None if self_attn != mlp else f"{checkpoint} has the same layers pruned in both lists: nothing to swap"


def _drop_a_layer(config: Json) -> None:
    config["num_hidden_layers"] -= 1


def _drop_a_layer_and_types(config: Json) -> None:
    _drop_a_layer(config)
    config.pop("layer_types", None)


def _lose_rope_theta(config: Json) -> None:
    config.pop("rope_theta", None)
    if isinstance(config.get("rope_parameters"), dict):
        config["rope_parameters"]["rope_theta"] = _STOCK_ROPE_THETA


def _conflicting_rope(config: Json) -> None:
    """Leave the old form right and add the new one, which 5.x heeds (5.0.0 and 5.23.0, modeling_rope_utils.py)."""
    theta = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    config["rope_theta"] = theta
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": _STOCK_ROPE_THETA}


def _rope_theta_is_its_own(checkpoint: Path) -> str | None:
    config = config_of(checkpoint)
    theta = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    if theta not in (None, _STOCK_ROPE_THETA):
        return None
    return f"{checkpoint}: rope_theta is {theta!r}, which is what a lost one falls back to"


def _bfloat16(checkpoint: Path) -> str | None:
    config = config_of(checkpoint)
    dtype = config.get("dtype", config.get("torch_dtype"))
    return None if dtype == "bfloat16" else f"{checkpoint}: dtype is {dtype!r}, but the fault needs 'bfloat16'"


def _lose_dtype(config: Json) -> None:
    config.pop("dtype", None)
    config.pop("torch_dtype", None)


def _tie(config: Json) -> None:
    config["tie_word_embeddings"] = True


FAULTS = (
    Fault(
        id="stock-class-no-auto-map",
        family="class",
        where="config",
        symptom="first",
        met="CASE-Lab-UMD/LLM-Drop#5",
        description="config.json loses auto_map and says model_type qwen3, so that the stock class loads and fills "
        "what was pruned with random weights",
        requires=something_pruned,
        plant=_edit(become_stock),
    ),
    Fault(
        id="plan-inverted-or-shifted",
        family="plan",
        where="config",
        symptom="first",
        description="config.json skips exactly the sub-layers that are stored",
        requires=own_code,
        plant=_edit_plan(_complement),
    ),
    Fault(
        id="plan-inverted-or-shifted:shifted",
        family="plan",
        where="config",
        symptom="first",
        description="every layer index in the plan of config.json is one too high, as when layers are counted from 1",
        requires=all_of(something_pruned, last_layer_kept),
        plant=_edit_plan(_shifted),
    ),
    Fault(
        id="attention-mlp-swapped",
        family="plan",
        where="config",
        symptom="first",
        description="config.json skips the mlp where self_attn was pruned, and the reverse",
        requires=_swap_matters,
        plant=_edit_plan(_swapped),
    ),
    Fault(
        id="kept-sublayer-skipped",
        family="plan",
        where="config",
        symptom="drift",
        description="config.json skips one sub-layer more than was pruned, whose weights are stored",
        requires=something_kept,
        plant=_edit_plan(_one_too_many),
    ),
    Fault(
        id="too-few-layers",
        family="config",
        where="config",
        symptom="first or drift",
        description="num_hidden_layers is one too low and layer_types is absent, so the last layer never runs",
        requires=last_layer_kept,
        plant=_edit(_drop_a_layer_and_types),
    ),
    Fault(
        id="stale-layer-types",
        family="config",
        where="config",
        symptom="error",
        description="num_hidden_layers is one too low, layer_types is as it was",
        requires=all_of(several_layers, config_says("layer_types", bool, "a list")),
        plant=_edit(_drop_a_layer),
    ),
    Fault(
        id="tie-flag-over-different-head",
        family="tied-head",
        where="config",
        symptom="first",
        met="huggingface/transformers#42612",
        description="tie_word_embeddings is true though the head that is stored differs from the embedding",
        needs=transformers_before("5.0.0", "later ones keep the stored head"),
        requires=untied,
        plant=_edit(_tie),
    ),
    Fault(
        id="rope-theta-lost",
        family="config",
        where="config",
        symptom="drift, most in long texts",
        description="rope_theta is back to 10000",
        requires=_rope_theta_is_its_own,
        plant=_edit(_lose_rope_theta),
    ),
    Fault(
        id="rope-theta-lost:conflict",
        family="config",
        where="config",
        symptom="drift, most in long texts",
        description="rope_theta is right, but rope_parameters beside it says 10000",
        needs=transformers_from("5.0.0", "earlier ones do not read rope_parameters"),
        requires=_rope_theta_is_its_own,
        plant=_edit(_conflicting_rope),
    ),
    Fault(
        id="dtype-lost",
        family="precision",
        where="config",
        symptom="memory",
        met="huggingface/transformers#34743",
        description="config.json loses the dtype of a bfloat16 checkpoint; a loader that then takes the default, "
        "float32, doubles the memory (none of the versions tested does: they ask the weights, or never the config)",
        requires=_bfloat16,
        plant=_edit(_lose_dtype),
    ),
)
