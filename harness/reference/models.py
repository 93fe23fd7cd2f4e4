"""Two independent answers to the question what a pruned model should compute.

Both start from the **unpruned** checkpoint and the stock transformers class, and share no code with `pruning`: what
the judge and the judged have in common, the judge cannot see. No forward is replaced and no argument is named, so
nothing that upstream renames can make a reference wrong.

* `identity_reference` has forward hooks put out zeros in place of what a pruned sub-layer computed. The sub-layer runs,
  so every cache fills as upstream fills it. It follows any way of loading: device maps, disk offload, 8-bit, 4-bit.
* `zero_weight_reference` zeroes the last projection of what is pruned, so that a sub-layer adds zeros; for plain loads.

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

# Names of the sub-layers and of their last projections as Qwen3 has them (transformers 5.24.0,
# models/qwen3/modeling_qwen3.py); Llama, Qwen2 and Mistral use the same.
_ATTENTION: Final = "self_attn"
_ATTENTION_OUTPUT: Final = "o_proj"
_MLP: Final = "mlp"
_MLP_OUTPUT: Final = "down_proj"


def identity_reference(
    base: Path, self_attn: Collection[int], mlp: Collection[int], **from_pretrained_kwargs: Any
) -> PreTrainedModel:
    """The stock model of the unpruned checkpoint `base` without the listed sub-layers, in evaluation mode.

    A listed sub-layer runs, and zeros are added to the residual stream in place of what it put out. What stands behind
    it in the layer (the norm of a layer that has one there) is computed of these zeros.

    All weights are loaded and converted as in the unpruned model, so the kept modules are quantised exactly as
    `from_pretrained_kwargs` (passed on to `AutoModelForCausalLM.from_pretrained`) asks, layer by layer.

    Raises:
        ValueError: A layer index that `base` does not have; a checkpoint whose weights do not fill the stock model
            exactly; one that does not load as a class of transformers itself; `trust_remote_code` among the keywords.
    """
    model = load_stock(base, **from_pretrained_kwargs)
    for module in _sublayers(model, self_attn, mlp):
        module.register_forward_hook(_put_out_zeros)
    return model


@contextmanager
def without_sublayers(model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]) -> Iterator[None]:
    """Make the stock `model` the identity reference of these sub-layers, within the `with`.

    Raises ValueError for a layer index that the model does not have.
    """
    handles = [module.register_forward_hook(_put_out_zeros) for module in _sublayers(model, self_attn, mlp)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _put_out_zeros(module: nn.Module, arguments: Any, output: Any) -> Any:
    """Return zeros in place of the hidden states that a sub-layer puts out, alone or first in a tuple."""
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    return (torch.zeros_like(output[0]), *output[1:])


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
    outputs = {_ATTENTION: _ATTENTION_OUTPUT, _MLP: _MLP_OUTPUT}
    silenced = [
        module.get_submodule(outputs[name])
        for name, indexes in ((_ATTENTION, self_attn), (_MLP, mlp))
        for module in _sublayers(model, **{_ATTENTION: (), _MLP: (), name: indexes})
    ]
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


def _sublayers(model: PreTrainedModel, self_attn: Collection[int], mlp: Collection[int]) -> list[nn.Module]:
    """Return these sub-layers of a stock model; raises ValueError for a layer that it does not have."""
    decoder: Any = model.base_model
    layers: list[nn.Module] = list(decoder.layers)
    for name, indexes in ((_ATTENTION, self_attn), (_MLP, mlp)):
        for index in indexes:
            if index not in range(len(layers)):
                raise ValueError(f"{name} must hold layer indexes in 0 to {len(layers) - 1}, but got {index!r}")
    modules = [layers[index].get_submodule(_ATTENTION) for index in sorted(self_attn)]
    return modules + [layers[index].get_submodule(_MLP) for index in sorted(mlp)]
