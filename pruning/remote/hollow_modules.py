"""Modules that are complete in structure, store nothing and add nothing: the same for every family of models.

The stock model builds itself. Then each pruned sub-layer loses its parameters and gets a class derived from its stock
class, whose `forward` puts out zeros; the decoder layer's own `forward`, which adds them to the residual stream, stays
upstream's. No argument of any `forward` is found by its name: transformers 5.24.0 renamed `past_key_values` to `cache`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

# Static slots of 4.57 are shaped by keys alone, and their values like them; later ones take both as they come
# (transformers 4.57.6 and 5.0.0, `cache_utils.py`, `lazy_initialization`; the count includes `self`).
_VALUES_ARE_SHAPED_LIKE_KEYS = StaticLayer.lazy_initialization.__code__.co_argcount < 3


def hollow_out(module: nn.Module) -> None:
    """Take parameters, buffers and children out of `module`; it keeps its structure, classes and shapes.

    Each parameter and buffer becomes a plain attribute of the same name that holds a tensor of the same shape and dtype
    on the meta device, each child a plain attribute. Nothing of that is registered, so `state_dict`, `from_pretrained`,
    `save_pretrained`, `.to()`, accelerate's dispatch, optimizers, quantisers and adapter libraries never meet it.
    """
    for submodule in list(module.modules()):
        for registered in (submodule._parameters, submodule._buffers):
            for name, tensor in list(registered.items()):
                if tensor is not None:
                    del registered[name]
                    submodule.__dict__[name] = _placeholder(tensor)  # setattr would register it again
    for name, child in list(module._modules.items()):
        del module._modules[name]
        module.__dict__[name] = child


def _placeholder(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, or parameter, of the same shape and dtype that holds no values and wants no gradient."""
    if tensor.is_meta:  # as where a load builds the model: it can stay
        return tensor.requires_grad_(False)
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def children_of(module: nn.Module, prefix: str = "") -> Iterable[tuple[str, nn.Module]]:
    """Yield names and modules within a hollow module, which `named_modules` does not list."""
    children = module._modules | {name: child for name, child in vars(module).items() if isinstance(child, nn.Module)}
    for name, child in children.items():
        if child is not None:
            yield f"{prefix}{name}", child
            yield from children_of(child, f"{prefix}{name}.")


class _Derived:
    """A module whose class was changed after it was built, and says so in `print(model)`."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Say how to copy and pickle the module: pickle finds no class by name that was made at run time."""
        mixin, stock_class = type(self).__bases__
        return _rebuilt, (mixin, stock_class), self.__dict__

    def extra_repr(self) -> str:
        return "pruned"


class SkippedSublayer(_Derived):
    """A sub-layer that adds nothing: its output is zeros of the shape of the hidden states that it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return zeros, which take no memory: one element, expanded."""
        return zeros_like(hidden_states_among(args, kwargs))


class SkippedAttention(SkippedSublayer):
    """An attention that adds nothing, and records the tokens that it sees in its slot of the KV cache."""

    cache_slot: int  # the index of its layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return zeros, and None for the attention weights."""
        hidden_states = hidden_states_among(args, kwargs)
        self.record_tokens(hidden_states, args, kwargs)
        return zeros_like(hidden_states), None

    def record_tokens(self, hidden_states: torch.Tensor, args: Any, kwargs: dict[str, Any]) -> None:
        """Tell the KV cache among the arguments, if there is one, that these tokens were seen."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache):
                record_tokens(value, hidden_states, self.cache_slot, kwargs)


class UnreadNorm(_Derived):
    """A norm in front of a pruned sub-layer: nothing reads what it puts out, so it computes nothing.

    Its weights stay stored, so that the sub-layer can be put back. They need no gradient: DistributedDataParallel fails
    on a parameter that gets none.
    """

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the hidden states that it is given."""
        return hidden_states_among(args, kwargs)

    def train(self, mode: bool = True) -> Any:
        """Set the training mode, and keep the weights frozen.

        Here, since a load makes every parameter trainable (transformers 5.23.0, `core_model_loading.py`) and then calls
        `eval()`.
        """
        self.requires_grad_(False)  # type: ignore[attr-defined]  # of the stock class behind it
        return super().train(mode)  # type: ignore[misc]


# One class for all modules of a class: torch.compile compiles anew for every class.
_DERIVED: dict[tuple[type, type], type] = {}


def _derived_class(mixin: type, stock_class: type) -> Any:
    key = (mixin, stock_class)
    if key not in _DERIVED:
        # The same name: device maps, plans of parallelism and quantisers know modules by the name of their class.
        _DERIVED[key] = type(stock_class.__name__, key, {"__module__": __name__})
    return _DERIVED[key]


def _rebuilt(mixin: type[_Derived], stock_class: type[nn.Module]) -> nn.Module:
    derived = _derived_class(mixin, stock_class)
    module: nn.Module = derived.__new__(derived)
    return module


def become(module: nn.Module, mixin: type[_Derived]) -> None:
    """Change the class of `module` to one derived from `mixin` and from the class that it has."""
    module.__class__ = _derived_class(mixin, type(module))


def hidden_states_among(args: Iterable[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the hidden states (batch, tokens, hidden size) among the arguments of a `forward`.

    They are the first floating-point tensor of three dimensions: masks have two or four, rotations come as a tuple.
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.dim() == 3 and value.is_floating_point():
            return value
    raise TypeError("a pruned sub-layer was called without hidden states of the shape (batch, tokens, hidden size)")


def zeros_like(hidden_states: torch.Tensor) -> torch.Tensor:
    """Return zeros of the same shape, dtype and device, for which one element is stored."""
    return hidden_states.new_zeros(()).expand_as(hidden_states)


def _stores_otherwise(slot: DynamicLayer) -> bool:
    """Whether a slot does something else with keys than to hold them, such as to quantise them."""
    return type(slot).update is not DynamicLayer.update


def record_tokens(
    kv_cache: Cache, hidden_states: torch.Tensor, layer_idx: int, kwargs: dict[str, Any] | None = None
) -> None:
    """Append a mark for each token of `hidden_states` (batch, new tokens, hidden size) to a pruned attention's slot.

    A cache asks single layers for its length and its mask sizes (transformers 4.57.6 to 5.24.0, `cache_utils.py`,
    `Cache.get_seq_length`: layer 0), so the slot of a pruned attention must grow too: by keys of shape (batch, 1, new
    tokens, 1), one element a token, and values of no width. The keys are ones, since 4.57's static slots count the
    tokens whose keys are not zero.

    A slot that quantises takes its keys in groups (5.24.0, `QuantizedLayer`), which marks do not fill. Nothing of a
    pruned attention is worth quantising, so a plain slot takes its place.

    `kwargs` are the attention's own, handed on unread: up to 5.2 a static cache is told there where the tokens belong
    (4.57.6, `models/qwen3/modeling_qwen3.py`).
    """
    batch, new_tokens = hidden_states.shape[:2]
    slots = kv_cache.layers
    slot: Any = slots[layer_idx] if layer_idx < len(slots) else None
    keys = hidden_states.new_ones((batch, 1, new_tokens, 1))
    values = keys[..., :0]
    shaped = getattr(slot, "keys", None)
    if shaped is None and isinstance(slot, DynamicLayer) and not slot.is_sliding and _stores_otherwise(slot):
        slots[layer_idx] = DynamicLayer()
    if shaped is not None and shaped.dim() == 4:
        if shaped.shape[1::2] != (1, 1):
            # The slot was given its shape by someone else (`Cache.early_initialization`).
            keys = keys.expand(batch, shaped.shape[1], new_tokens, shaped.shape[3])
            values = keys.new_zeros(()).expand(batch, slot.values.shape[1], new_tokens, slot.values.shape[3])
    elif _VALUES_ARE_SHAPED_LIKE_KEYS and isinstance(slot, StaticLayer):
        unshaped: Any = slot
        unshaped.lazy_initialization(keys)
        unshaped.values = unshaped.values[..., :0].clone()
    kv_cache.update(keys, values, layer_idx, kwargs or {})
