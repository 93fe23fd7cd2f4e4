"""Two independent answers to the question what a pruned model should compute.

Both start from the **unpruned** checkpoint and the stock transformers class, and share no code with `pruning`: what
the judge and the judged have in common, the judge cannot see.

* `identity_reference` replaces the forward of the affected decoder layers, so that the residual stream passes
  a pruned sub-layer untouched. It follows any way of loading: device maps, disk offload, 8-bit, 4-bit.
* `zero_weight_reference` leaves every line of the stock forward as it is and zeroes the last projection of what is
  pruned, so that a sub-layer adds zeros. Nothing is replaced, hence nothing can be replaced wrongly; for plain loads.

`without_sublayers` and `with_zero_weights` do the same to a model that is there, for as long as a `with` lasts: one
unpruned model in memory is then the reference of both kinds, and of every plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

# Names of a pre-norm decoder layer as Qwen3 has them (transformers 5.23.0, models/qwen3/modeling_qwen3.py); Llama,
# Qwen2 and Mistral use the same.
_ATTENTION: Final = "self_attn"
_ATTENTION_NORM: Final = "input_layernorm"
_ATTENTION_OUTPUT: Final = "o_proj"
_MLP: Final = "mlp"
_MLP_NORM: Final = "post_attention_layernorm"
_MLP_OUTPUT: Final = "down_proj"


def identity_reference(
    base: Path, self_attn: Collection[int], mlp: Collection[int], **from_pretrained_kwargs: Any
) -> PreTrainedModel:
    """The stock model of the unpruned checkpoint `base` without the listed sub-layers, in evaluation mode.

    Norm, module and residual add of a listed sub-layer are gone from the computation; uncached, its module is never
    called. With a cache, a pruned attention runs and only its *output* is thrown away: its slot then fills as in the
    unpruned model, so the length that the model asks of slot 0 (`Cache.get_seq_length`, cache_utils.py of
    transformers 4.57.6, 5.0.0 and 5.23.0) is true for every kind of cache, and no kept layer ever reads that slot.

    All weights are loaded and converted as in the unpruned model, so the kept modules are quantised exactly as
    `from_pretrained_kwargs` (passed on to `AutoModelForCausalLM.from_pretrained`) asks, layer by layer.

    Raises:
        ValueError: A layer index that `base` does not have; a checkpoint whose weights do not fill the stock model
            exactly; one that does not load as a class of transformers itself; `trust_remote_code` among the keywords.
    """
    model = load_stock(base, **from_pretrained_kwargs)
    layers = _decoder_layers(model, self_attn, mlp)
    for index in sorted({*self_attn, *mlp}):
        _replace_forward(layers[index], keep_attention=index not in self_attn, keep_mlp=index not in mlp)
    return model


@contextmanager
def without_sublayers(model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]) -> Iterator[None]:
    """Make the stock `model` the identity reference of these sub-layers, within the `with`.

    Raises ValueError for a layer index that the model does not have, and for layers that are not pre-norm.
    """
    layers = _decoder_layers(model, self_attn, mlp)
    touched = [layers[index] for index in sorted({*self_attn, *mlp})]
    before = [dict(layer.__dict__) for layer in touched]
    try:
        for index in sorted({*self_attn, *mlp}):
            _replace_forward(layers[index], keep_attention=index not in self_attn, keep_mlp=index not in mlp)
        yield
    finally:
        for layer, attributes in zip(touched, before, strict=True):
            for name in ("forward", "_old_forward"):
                layer.__dict__.pop(name, None)
                if name in attributes:
                    layer.__dict__[name] = attributes[name]


@contextmanager
def with_zero_weights(model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]) -> Iterator[None]:
    """Make the stock `model`, loaded plainly, the zero-weight reference of these sub-layers, within the `with`.

    Raises ValueError as `zero_weight_reference` does.
    """
    parameters = _silenced_parameters(model, self_attn, mlp)
    before = [parameter.data for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.data = torch.zeros_like(parameter.data)
        yield
    finally:
        for parameter, data in zip(parameters, before, strict=True):
            parameter.data = data


def zero_weight_reference(
    base: Path, self_attn: Collection[int], mlp: Collection[int], **from_pretrained_kwargs: Any
) -> PreTrainedModel:
    """The stock model of `base`, in evaluation mode, where the listed sub-layers add exact zeros.

    `o_proj` of each attention in `self_attn` and `down_proj` of each MLP in `mlp` are zeroed after the load, biases
    included. Adding zero is exact in floating point, so this equals the sub-layer's absence as long as its
    activations are finite.

    Raises:
        ValueError: As `identity_reference`; also when the load quantises or offloads, since those weights cannot be
            zeroed in place.
    """
    model = load_stock(base, **from_pretrained_kwargs)
    with torch.no_grad():
        for parameter in _silenced_parameters(model, self_attn, mlp):
            parameter.zero_()
    return model


def _silenced_parameters(
    model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]
) -> list[nn.Parameter]:
    """Return the parameters that are zero where a sub-layer adds nothing."""
    if getattr(model.config, "quantization_config", None) is not None or any(
        parameter.is_meta for parameter in model.parameters()
    ):
        raise ValueError(
            "the zero-weight reference exists for plain loads only, but this one quantises or offloads weights; "
            "use the identity reference instead"
        )
    layers = _decoder_layers(model, self_attn, mlp)
    silenced = [layers[index].get_submodule(f"{_ATTENTION}.{_ATTENTION_OUTPUT}") for index in self_attn]
    silenced += [layers[index].get_submodule(f"{_MLP}.{_MLP_OUTPUT}") for index in mlp]
    return [parameter for module in silenced for parameter in module.parameters()]


def reference_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Logits of one uncached forward pass without gradients, float32 (batch, tokens, vocabulary).

    `input_ids` and `attention_mask` are integer (batch, tokens), the mask 1 for tokens and 0 for padding; both are
    moved to the device of the embedding. Positions are the model's default, counted from the first column.
    """
    device = next(model.get_input_embeddings().parameters()).device
    if device.type == "meta":  # offloaded: the hooks of accelerate move the inputs
        device = input_ids.device
    mask = None if attention_mask is None else attention_mask.to(device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=input_ids.to(device), attention_mask=mask, use_cache=False).logits
    return logits.float()


def load_stock(base: Path, **from_pretrained_kwargs: Any) -> PreTrainedModel:
    """Load `base` by its stock class, in evaluation mode; raises ValueError for any load that is not exact."""
    if "trust_remote_code" in from_pretrained_kwargs:
        raise ValueError("a reference never runs a checkpoint's own code, but got the keyword trust_remote_code")
    # Any: how precisely the loader is typed differs between the supported versions of transformers.
    loaded: Any = AutoModelForCausalLM.from_pretrained(base, output_loading_info=True, **from_pretrained_kwargs)
    model, loading_info = loaded
    if not type(model).__module__.startswith("transformers."):
        raise ValueError(
            f"a reference needs a class of transformers itself, but {base} loads as "
            f"{type(model).__module__}.{type(model).__qualname__}; is it the unpruned checkpoint?"
        )
    # A key that is absent is initialised at random with no more than a warning: such a model is no reference.
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading_info[problem])):
            raise ValueError(f"{base} does not fill the stock {type(model).__name__} exactly: {problem}={keys}")
    stock_model: PreTrainedModel = model.eval()
    return stock_model


def _decoder_layers(model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]) -> list[nn.Module]:
    decoder: Any = model.base_model
    layers = list(decoder.layers)
    for name, indexes in ((_ATTENTION, self_attn), (_MLP, mlp)):
        for index in indexes:
            if index not in range(len(layers)):
                raise ValueError(f"{name} must hold layer indexes in 0 to {len(layers) - 1}, but got {index!r}")
    return layers


def _replace_forward(layer: nn.Module, *, keep_attention: bool, keep_mlp: bool) -> None:
    """Give one decoder layer a forward that computes only what is kept."""
    if {name for name, _ in layer.named_children()} != {_ATTENTION, _ATTENTION_NORM, _MLP, _MLP_NORM}:
        raise ValueError(f"{type(layer).__name__} is no plain pre-norm layer, so its forward cannot be replaced")

    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:  # (batch, tokens, hidden) in and out
        # Keywords are handed on unread: their names changed between transformers 4.57 and 5.23.
        if keep_attention or kwargs.get("past_key_values") is not None:
            normed = layer.get_submodule(_ATTENTION_NORM)(hidden_states)
            attention_output = layer.get_submodule(_ATTENTION)(hidden_states=normed, **kwargs)[0]
            if keep_attention:
                hidden_states = hidden_states + attention_output
        if keep_mlp:
            normed = layer.get_submodule(_MLP_NORM)(hidden_states)
            hidden_states = hidden_states + layer.get_submodule(_MLP)(normed)
        return hidden_states

    # Where accelerate dispatched the model, `forward` holds its hook, which moves inputs and weights and then calls
    # `_old_forward` (accelerate 1.15.0, hooks.py, add_hook_to_module): the hook has to stay.
    attribute = "_old_forward" if hasattr(layer, "_old_forward") else "forward"
    setattr(layer, attribute, forward)
