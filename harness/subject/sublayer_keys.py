"""Which sub-layer a key belongs to, as the stock model names its own parameters, and which norm a sub-layer has.

The pruner has a matcher of its own (`pruning/state_dict.py`). This one shares nothing with it: a key that the pruner
takes for another sub-layer's is still seen here as what it is.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from pruning import SubLayer

from .stock import empty_stock_model

# The norm in front of each kind of sub-layer, as Qwen3 names it (transformers 5.23.0,
# models/qwen3/modeling_qwen3.py).
NORM_OF: Final = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}


class Norm(NamedTuple):
    """The norm in front of a sub-layer; prints as in a state dict, such as `layers.3.input_layernorm`."""

    of: SubLayer

    def __str__(self) -> str:
        return f"layers.{self.of.layer}.{NORM_OF[self.of.kind]}"


def sublayer_of(key: str) -> SubLayer | None:
    """Return the sub-layer that a key lies under, with or without the base model's prefix, or None.

    >>> sublayer_of("model.layers.10.mlp.up_proj.weight")
    SubLayer(layer=10, kind='mlp')
    >>> sublayer_of("model.layers.10.input_layernorm.weight")
    """
    parts = key.split(".")
    paths, sublayers = _layout()
    for path in paths:
        if tuple(parts[: len(path)]) == path and any(parts[len(path) + 2 :]):
            index, name = parts[len(path) : len(path) + 2]
            if name in sublayers and _is_index(index):
                return SubLayer(int(index), name)
    return None


def _is_index(text: str) -> bool:
    """Whether a module list would name one of its modules so: it writes numbers without leading zeros."""
    return len(text) < 10 and text.isascii() and text.isdigit() and str(int(text)) == text


@cache
def _layout() -> tuple[tuple[tuple[str, ...], ...], frozenset[str]]:
    """Return the paths by which keys reach the list of decoder layers, and the names of the sub-layers in each.

    Read off the parameters of the stock model's first layer. A sub-layer is made of modules, a norm is one.
    """
    model = empty_stock_model({"num_hidden_layers": 1})
    names = [name.split(".") for name, _ in model.named_parameters()]
    of_the_layer = [parts for parts in names if "0" in parts]
    (path,) = {tuple(parts[: parts.index("0")]) for parts in of_the_layer}
    sublayers = {parts[len(path) + 1] for parts in of_the_layer if len(parts) > len(path) + 3}
    prefix = (model.base_model_prefix,)
    return (path, path[1:]) if path[:1] == prefix else (path,), frozenset(sublayers)
