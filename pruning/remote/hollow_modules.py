"""Modules that are complete in structure and store nothing; what pruned models of every family share."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from .per_layer_skip import MANIFEST_FILE

try:
    from transformers.initialization import no_init_weights
except ImportError:  # before 5.0, where a load passes initialisation by on its own
    no_init_weights = nullcontext  # type: ignore[assignment]  # called without arguments, all the same

# transformers 4.57 shapes a static layer's values like its keys, 5.x like the values it is given.
_VALUES_ARE_SHAPED_LIKE_KEYS = "value_states" not in StaticLayer.lazy_initialization.__code__.co_varnames


def no_initialisation_on_meta() -> AbstractContextManager[None]:
    """Return a context in which modules that are built on the meta device are not initialised.

    There is nothing to fill, but in 5.x a load has torch go through it in Python for each linear module, which takes
    about as long as all else in building a model (transformers 5.0.0 and 5.23.0, `modeling_utils.py`,
    `get_init_context`). Elsewhere, as where a model is built from a config, the context does nothing.
    """
    return no_init_weights() if torch.empty(0).is_meta else nullcontext()


def hollow_out(module: nn.Module) -> None:
    """Take every parameter out of `module`, leaving its structure, classes and shapes.

    Each parameter becomes a plain attribute of the same name that holds a parameter of the same shape and dtype
    on the meta device. As it is not registered, `state_dict`, `from_pretrained`, `save_pretrained`, `.to()`,
    accelerate's dispatch and optimizers never meet it: nothing is stored, initialised, moved or missed.
    """
    for submodule in module.modules():
        for name, parameter in list(submodule._parameters.items()):
            if parameter is not None:
                del submodule._parameters[name]
                if parameter.is_meta:  # as where a load builds the model: what is there can stay
                    placeholder = parameter.requires_grad_(False)
                else:
                    placeholder = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
                submodule.__dict__[name] = placeholder  # setattr would register it again


def record_tokens(
    past_key_values: Cache | None,
    hidden_states: torch.Tensor,
    layer_idx: int,
    cache_position: torch.Tensor | None,
) -> None:
    """Tell the KV cache that a pruned attention has seen these tokens, at one element a token or less.

    `hidden_states` is (batch, new tokens, hidden size). A cache asks single layers for its length and its mask
    sizes (transformers 4.57.6 and 5.23.0, `cache_utils.py`, `Cache.get_seq_length`: layer 0), so the slot of a
    pruned attention must grow too: with keys of shape (batch, 1, new tokens, 1), and values of no width.
    The keys are ones, since 4.57's static layers count the tokens whose keys are not zero.
    """
    if past_key_values is None:
        return
    batch, new_tokens = hidden_states.shape[:2]
    layers = past_key_values.layers
    slot: Any = layers[layer_idx] if layer_idx < len(layers) else None
    if _is_marked(slot, batch) and _updates_one_slot(past_key_values):
        # One mark seen as many: nothing is copied and a GPU is told nothing, which an append would wait for.
        tokens = slot.keys.shape[2] + new_tokens
        slot.keys = slot.keys.as_strided((batch, 1, tokens, 1), (0, 0, 0, 0))
        slot.values = slot.keys.as_strided((batch, 1, tokens, 0), (0, 0, 0, 0))
        return
    is_static = isinstance(slot, StaticLayer)
    keys = hidden_states.new_ones((batch, 1, new_tokens, 1))
    values = keys[..., :0]
    if slot is not None and slot.is_initialized and slot.keys is not None and slot.keys.dim() == 4:
        # The slot may have been allocated at full width by someone else (`Cache.early_initialization`).
        keys = keys.expand(batch, slot.keys.shape[1], new_tokens, slot.keys.shape[3])
        values = keys.new_zeros(()).expand(batch, slot.values.shape[1], new_tokens, slot.values.shape[3])
    elif _VALUES_ARE_SHAPED_LIKE_KEYS and is_static:
        slot.lazy_initialization(keys)
        slot.values = slot.values[..., :0].clone()
    cache_kwargs = () if cache_position is None else ({"cache_position": cache_position},)
    past_key_values.update(keys, values, layer_idx, *cache_kwargs)


def _is_marked(slot: Any, batch: int) -> bool:
    """Return whether a slot is there, of the plain kind that counts tokens by its keys' shape, and has ours alone."""
    if type(slot) is not DynamicLayer or not slot.is_initialized:
        return False
    keys: Any = slot.keys
    values: Any = slot.values
    return bool(keys.shape[:2] == (batch, 1) and values.shape[3:] == (0,) and keys.numel() > 0)


def _updates_one_slot(cache: Cache) -> bool:
    """Return whether `cache.update` does nothing but update one slot: some move slots between devices, too."""
    return type(cache).update is Cache.update and not cache.offloading


def refuse_adapters(module: nn.Module, name: str) -> None:
    """Raise RuntimeError if an adapter was attached to the pruned `module`.

    An adapter library gives its weights the device of what it adapts, here the meta device (peft 0.21.2,
    `tuners/tuners_utils.py`, `_move_adapter_to_device_of_base_layer`). They could never learn nor be saved.
    """
    for parameter_name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise RuntimeError(
                f"{name}.{parameter_name} adapts a pruned module, which never runs: "
                "leave it out, with LoraConfig(exclude_modules=model.pruned_linear_names())"
            )


class PrunedModelMixin:
    """What every pruned causal language model has; stands before the stock class among the bases."""

    # save_pretrained copies the modeling files and writes `auto_map`, so that what it saves loads elsewhere
    # (transformers `register_for_auto_class`, which sets this attribute).
    _auto_class: str | None = "AutoModelForCausalLM"
    _keep_in_fp32_modules: Any  # of the stock class behind this one

    def pruned_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the name and the module of each pruned `self_attn` and `mlp`."""
        for name, module in self.named_modules():  # type: ignore[attr-defined]  # of the stock class behind it
            flags = vars(module)  # a module takes long to say that it has no such attribute, and most have none
            if flags.get("prune_self_attn"):
                yield f"{name}.self_attn", module.self_attn
            if flags.get("prune_mlp"):
                yield f"{name}.mlp", module.mlp

    def pruned_linear_names(self) -> list[str]:
        """Return the full names of the linear modules in pruned sub-layers, for `LoraConfig(exclude_modules=...)`."""
        return [
            f"{name}.{inner_name}"
            for name, module in self.pruned_modules()
            for inner_name, inner in module.named_modules()
            if isinstance(inner, nn.Linear)
        ]

    def keep_pruned_modules_out_of_quantisation(self) -> None:
        """Tell quantisers to pass the pruned modules by: they would look for weights that are nowhere.

        Called after `post_init`, which (4.57.6, `modeling_utils.py`) wants a parameter behind each such name.
        """
        names = [name for name, _ in self.pruned_modules()]
        if names:
            # The one list that quantisers of every version heed, and that needs no change of the user's own
            # configuration (4.57.6 and 5.23.0, `quantizers/quantizer_bnb_8bit.py`).
            self._keep_in_fp32_modules = [*(self._keep_in_fp32_modules or []), *names]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, with the modeling files, and remove a manifest that would be stale."""
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]  # the stock class's
        manifest = os.path.join(save_directory, MANIFEST_FILE)
        if os.path.isfile(manifest):
            os.remove(manifest)
        return result
