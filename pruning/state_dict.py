"""Which state dict keys a plan prunes."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .errors import CheckpointError
from .plan import PrunePlan, SubLayer

# With or without the base model's prefix: transformers loads both.
_SUBLAYER_KEY = re.compile(r"(?:model\.)?layers\.(0|[1-9][0-9]{0,8})\.(self_attn|mlp)\..+", re.DOTALL)

Value = TypeVar("Value")


def sublayer_of(key: str) -> SubLayer | None:
    """Return the sub-layer that a state dict key lies under, or None.

    >>> sublayer_of("model.layers.10.mlp.up_proj.weight")
    SubLayer(layer=10, kind='mlp')
    >>> sublayer_of("model.layers.10.input_layernorm.weight")
    """
    match = _SUBLAYER_KEY.fullmatch(key)
    return SubLayer(int(match[1]), match[2]) if match else None


def is_pruned(key: str, plan: PrunePlan) -> bool:
    """Say whether a state dict key lies under a sub-layer that the plan prunes."""
    return sublayer_of(key) in plan


def require_sublayers(keys: Iterable[str], plan: PrunePlan) -> None:
    """Raise CheckpointError if the plan prunes a sub-layer of which there is no key."""
    present = {sublayer_of(key) for key in keys}
    for each in plan:
        if each not in present:
            raise CheckpointError(
                f"there is no tensor of {each.kind} in layer {each.layer}: keys should begin with model.{each}."
            )


def prune_state_dict(state_dict: Mapping[str, Value], plan: PrunePlan) -> dict[str, Value]:
    """Return a new dict without the keys that the plan prunes; the values are shared, not copied.

    Raises CheckpointError if there is no key under a sub-layer that the plan prunes: an index out of range, or
    keys with a prefix such as `_orig_mod.` that hides them.
    """
    require_sublayers(state_dict, plan)
    return {key: value for key, value in state_dict.items() if not is_pruned(key, plan)}
