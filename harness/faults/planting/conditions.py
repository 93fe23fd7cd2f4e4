"""Why a fault cannot be shown in this environment, or cannot be planted in this checkpoint; None where it can."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from packaging.version import Version

from harness.faults.fault import Needs, Requires

from .checkpoint_files import INDEX, MANIFEST, config_of, plan_of, stored_keys, weight_files

_VERSION = Version(transformers.__version__)


def package(name: str, *others: Needs) -> Needs:
    """Need an installed package, and whatever else; the first that is not there is the reason."""

    def needs() -> str | None:
        if find_spec(name) is None:
            return f"{name} is not installed: pip install {name}"
        return next((reason for other in others if (reason := other())), None)

    return needs


def transformers_from(version: str, why: str) -> Needs:
    """Need this version of transformers or a later one."""

    def needs() -> str | None:
        if Version(version) <= _VERSION:
            return None
        return f"transformers is {transformers.__version__}, but the fault needs {version} or later: {why}"

    return needs


def transformers_before(version: str, why: str) -> Needs:
    """Need a version of transformers before this one."""

    def needs() -> str | None:
        if Version(version) > _VERSION:
            return None
        return f"transformers is {transformers.__version__}, but the fault needs one before {version}: {why}"

    return needs


def several_gpus() -> str | None:
    """Need two GPUs or more."""
    count = torch.cuda.device_count()
    return None if count > 1 else f"{count} GPUs are here, but bytes go from one to another only where there are two"


def all_of(*conditions: Requires) -> Requires:
    """Require several things; the first that is not met is the reason."""

    def requires(checkpoint: Path) -> str | None:
        return next((reason for condition in conditions if (reason := condition(checkpoint))), None)

    return requires


def something_pruned(checkpoint: Path) -> str | None:
    """Require a pruned sub-layer."""
    self_attn, mlp = plan_of(config_of(checkpoint))
    return None if self_attn or mlp else f"{checkpoint} has no pruned sub-layer, but the fault is about one"


def something_kept(checkpoint: Path) -> str | None:
    """Require a kept sub-layer."""
    config = config_of(checkpoint)
    if sum(map(len, plan_of(config))) < 2 * config["num_hidden_layers"]:
        return None
    return f"{checkpoint} has no sub-layer left, but the fault is about a kept one"


def pruned_mlp(checkpoint: Path) -> str | None:
    """Require a pruned mlp."""
    return None if plan_of(config_of(checkpoint))[1] else f"{checkpoint} has no pruned mlp, but the fault is about one"


def kept_mlp(checkpoint: Path) -> str | None:
    """Require a kept mlp."""
    config = config_of(checkpoint)
    if len(plan_of(config)[1]) < config["num_hidden_layers"]:
        return None
    return f"{checkpoint} has no mlp left, but the fault is about a kept one"


def pruned_attention(checkpoint: Path) -> str | None:
    """Require a pruned self_attn."""
    if plan_of(config_of(checkpoint))[0]:
        return None
    return f"{checkpoint} has no pruned self_attn, but the fault is about one"


def kept_attention(checkpoint: Path) -> str | None:
    """Require a kept self_attn."""
    config = config_of(checkpoint)
    if len(plan_of(config)[0]) < config["num_hidden_layers"]:
        return None
    return f"{checkpoint} has no self_attn left, but the fault is about a kept one"


def attention_after_pruned_first(checkpoint: Path) -> str | None:
    """Require that layer 0's self_attn is pruned and a later one is kept, which then reads a wrong length."""
    if 0 not in plan_of(config_of(checkpoint))[0]:
        return f"{checkpoint} keeps the self_attn of layer 0, but the fault is about a pruned one"
    return kept_attention(checkpoint)


def pruned_first_of_a_later_kind(checkpoint: Path) -> str | None:
    """Require two attention kinds, and that the first self_attn of the kind that layer 0 is not of is pruned."""
    config = config_of(checkpoint)
    kinds = config.get("layer_types") or []
    later = next((index for index, kind in enumerate(kinds) if kind != kinds[0]), None)
    if later is None:
        return f"{checkpoint} has one kind of attention, but the fault is about sliding and full ones mixed"
    self_attn, _ = plan_of(config)
    if later not in self_attn:
        return f"{checkpoint} keeps the self_attn of layer {later}, the first {kinds[later]}, which must be pruned"
    if all(index in self_attn for index, kind in enumerate(kinds) if kind == kinds[later]):
        return f"{checkpoint} has no {kinds[later]} left that could be misled, but the fault wants a kept one"
    return None


def whole_layer_before_a_kept_one(checkpoint: Path) -> str | None:
    """Require a layer whose self_attn and mlp are both pruned, and a kept self_attn after it."""
    config = config_of(checkpoint)
    self_attn, mlp = plan_of(config)
    whole = self_attn & mlp
    if any(index not in self_attn for index in range(min(whole, default=0), config["num_hidden_layers"]) if whole):
        return None
    return f"{checkpoint} has no pruned whole layer before a kept self_attn, but the fault renumbers what follows one"


def whole_layer_kept(checkpoint: Path) -> str | None:
    """Require a layer of which nothing is pruned."""
    config = config_of(checkpoint)
    self_attn, mlp = plan_of(config)
    if len(self_attn | mlp) < config["num_hidden_layers"]:
        return None
    return f"{checkpoint} has something pruned in every layer, but the fault is about one that is whole"


def last_layer_kept(checkpoint: Path) -> str | None:
    """Require that nothing is pruned in the last of several layers."""
    config = config_of(checkpoint)
    last = config["num_hidden_layers"] - 1
    if last < 1:
        return f"{checkpoint} has one layer, but the fault needs two"
    if any(last in indexes for indexes in plan_of(config)):
        return f"{checkpoint} has a pruned sub-layer in its last layer, {last}, which must be whole"
    return None


def several_layers(checkpoint: Path) -> str | None:
    """Require two layers or more."""
    layers = config_of(checkpoint)["num_hidden_layers"]
    return None if layers > 1 else f"{checkpoint} has {layers} layer, but the fault needs two"


def several_shards(checkpoint: Path) -> str | None:
    """Require an index and two shards or more."""
    count = len(weight_files(checkpoint))
    if count > 1 and (checkpoint / INDEX).exists():
        return None
    return f"{checkpoint} has {count} file of weights, but the fault needs an index and two shards"


def tied(checkpoint: Path) -> str | None:
    """Require a head tied to the embedding."""
    if config_of(checkpoint).get("tie_word_embeddings"):
        return None
    return f"{checkpoint} has a head of its own (tie_word_embeddings), but the fault is about a tied one"


def untied(checkpoint: Path) -> str | None:
    """Require a head of its own, stored."""
    if "lm_head.weight" in stored_keys(checkpoint) and not config_of(checkpoint).get("tie_word_embeddings"):
        return None
    return f"{checkpoint} stores no head of its own (lm_head.weight), but the fault is about one"


def manifest(checkpoint: Path) -> str | None:
    """Require the manifest, which knows the shapes of what was pruned."""
    if (checkpoint / MANIFEST).exists():
        return None
    return f"{checkpoint} has no {MANIFEST}, which says what was pruned: plant in what `prunecheck prune` wrote"


def own_code(checkpoint: Path) -> str | None:
    """Require the modeling code that `prunecheck prune` writes."""
    if config_of(checkpoint).get("model_type", "").startswith("pruned_"):
        return None
    return f"{checkpoint} does not carry prunecheck's own modeling code, which the fault changes"


def holds(name: str, what: str) -> Requires:
    """Require a file."""

    def requires(checkpoint: Path) -> str | None:
        return None if (checkpoint / name).exists() else f"{checkpoint} has no {name}, {what}"

    return requires


def config_says(name: str, holds_for: Callable[[object], bool], expected: str) -> Requires:
    """Require something of one value of `config.json`."""

    def requires(checkpoint: Path) -> str | None:
        value = config_of(checkpoint).get(name)
        return None if holds_for(value) else f"{checkpoint}: {name} is {value!r}, but the fault needs {expected}"

    return requires
