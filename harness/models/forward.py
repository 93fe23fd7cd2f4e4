"""Run a causal language model and look on: logits with and without a KV cache, what is called, what layers put out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, StaticCache

from harness.subject.sublayer_keys import NORM_OF, Norm
from pruning import SubLayer
from pruning.plan import sublayers_of

Part = SubLayer | Norm
"""A part of a decoder layer."""

_CACHE_TYPE: Final = re.compile(r"\b[A-Za-z]*Cache\b")


@dataclass(frozen=True)
class TokenBatch:
    """`ids` and `mask`, both int64 (batch, tokens); the mask is 1 for tokens, 0 for padding on the left."""

    ids: Tensor
    mask: Tensor

    @property
    def is_padded(self) -> bool:
        """Whether any row begins with padding."""
        return not bool(self.mask.all())

    @property
    def positions(self) -> Tensor:
        """Each token's position, counted from the first that is no padding, as `generate` counts."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)


def unpadded(ids: Tensor) -> TokenBatch:
    """Return a batch without padding."""
    return TokenBatch(ids, torch.ones_like(ids))


@torch.no_grad()
def uncached_logits(model: Any, batch: TokenBatch) -> Tensor:
    """Return the logits of one pass without a cache, float32 on the CPU, (batch, tokens, vocabulary)."""
    device = input_device(model)
    logits: Tensor = model(
        input_ids=batch.ids.to(device),
        attention_mask=batch.mask.to(device),
        position_ids=batch.positions.to(device) if batch.is_padded else None,
        use_cache=False,
    ).logits
    return logits.float().cpu()


@torch.no_grad()
def cached_logits(
    model: Any, batch: TokenBatch, cache: Cache | None, pieces: Sequence[int], *, start: int = 0
) -> tuple[Tensor, Any]:
    """Return the logits of the pieces of a batch, one after the other through one cache, and that cache.

    `pieces` are numbers of tokens, counted from `start`, which is how many the cache has seen. Positions
    are left to the model, which asks the cache for them, unless there is padding. Without a cache the model makes one.
    """
    device = input_device(model)
    logits = []
    for length in pieces:
        end = start + length
        output = model(
            input_ids=batch.ids[:, start:end].to(device),
            attention_mask=batch.mask[:, :end].to(device),
            position_ids=batch.positions[:, start:end].to(device) if batch.is_padded else None,
            use_cache=True,
            **with_cache(model, cache),
        )
        cache = cache_of(output)
        logits.append(output.logits.float().cpu())
        start = end
    return torch.cat(logits, dim=1), cache


def cache_argument(model: Any) -> str:
    """Return the name by which a model's forward takes a KV cache: that of the parameter with the type of a cache.

    transformers 5.24.0 renamed it, and may again. Where a model's own forward says no type, its base classes' do, or
    those of the model that it wraps.
    """
    own = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    inner = [getattr(model, "_orig_mod", None), getattr(model, "base_model", None)]  # of torch.compile, of peft
    forwards = [model.forward, *(vars(base)["forward"] for base in type(model).__mro__ if "forward" in vars(base))]
    for forward in (*forwards, *(each.forward for each in inner if isinstance(each, nn.Module))):
        for parameter in inspect.signature(forward).parameters.values():
            if _CACHE_TYPE.search(str(parameter.annotation)) and (parameter.name in own or takes_any):
                return parameter.name
    return "past_key_values"


def with_cache(model: Any, cache: Cache | None) -> dict[str, Cache]:
    """Return the keyword argument by which a model takes `cache`: none for None, where it makes one itself."""
    return {} if cache is None else {cache_argument(model): cache}


def cache_of(output: Any) -> Any:
    """Return the KV cache in a model's output, whatever it is called there; raises ValueError if there is none."""
    for value in output.values():
        if isinstance(value, Cache):
            return value
    raise ValueError(f"the output holds no KV cache, but {', '.join(output)}")


NEW_CACHE: Final[dict[str, Callable[[Any, int], Cache]]] = {
    "dynamic": lambda model, tokens: DynamicCache(config=model.config),
    "static": lambda model, tokens: StaticCache(config=model.config, max_cache_len=tokens),
}


def input_device(model: Any) -> torch.device:
    """Return the device that token ids belong on; the CPU for an offloaded embedding, whose hooks move them."""
    device: torch.device = next(model.get_input_embeddings().parameters()).device
    return torch.device("cpu") if device.type == "meta" else device


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the decoder layers of a model, wrapped or not; an empty list if it has none that are known by name.

    In the place of a layer that is not there, as pruned as a whole, is a module without parts.
    """
    for name, module in model.named_modules():
        if name.split(".")[-1] != "layers":
            continue
        if isinstance(module, nn.ModuleList):
            return [nn.Module() if layer is None else layer for layer in module]
        if isinstance(module, nn.ModuleDict) and module and all(key.isdecimal() for key in module):
            there = {int(key): layer for key, layer in module.items()}
            return [there.get(index) or nn.Module() for index in range(max(there) + 1)]
    return []


def module_of(layers: Sequence[nn.Module], part: Part) -> nn.Module | None:
    """Return the module of a part among decoder layers; None if there is none."""
    layer, name = (part.of.layer, NORM_OF[part.of.kind]) if isinstance(part, Norm) else (part.layer, part.kind)
    return part_of(layers[layer], name) if layer < len(layers) else None


def parts_of(layers: Sequence[nn.Module]) -> Iterator[tuple[Part, nn.Module]]:
    """Yield the parts of decoder layers that are there, under the names that Qwen3 gives them, with their modules."""
    for sublayer in sublayers_of(len(layers)):
        for part in (Norm(sublayer), sublayer):
            if (module := module_of(layers, part)) is not None:
                yield part, module


def part_of(layer: nn.Module, name: str) -> nn.Module | None:
    """Return a part of a decoder layer; None if there is none, or None in its place."""
    part = getattr(layer, name, None)
    return part if isinstance(part, nn.Module) else None


def holds_values(module: nn.Module | None) -> bool:
    """Return whether a module has a parameter or buffer with values; what has none can only pass on, or make up."""
    return module is not None and any(not tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


@contextmanager
def silent_sublayers(model: nn.Module, sublayers: Collection[SubLayer]) -> Iterator[set[SubLayer]]:
    """Record, within the `with`, which of these put out zeros alone whenever they are called."""
    silent = set(sublayers)
    layers, handles = decoder_layers(model), []

    def look(entry: SubLayer, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output
        if not isinstance(values, Tensor) or bool(values.any()):  # NaN is no zero
            silent.discard(entry)

    for each in sublayers:
        if (module := module_of(layers, each)) is not None:
            handles.append(module.register_forward_hook(lambda *call, entry=each: look(entry, call[-1])))
    try:
        yield silent
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def silenced(model: nn.Module, sublayers: Collection[SubLayer]) -> Iterator[None]:
    """Let these, within the `with`, put out zeros, so that adding what they put out changes nothing."""

    def zeros(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    layers = decoder_layers(model)
    modules = [module for each in sublayers if (module := module_of(layers, each)) is not None]
    handles = [module.register_forward_hook(zeros) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def calls(model: nn.Module) -> Iterator[set[Part]]:
    """Record, within the `with`, which parts of decoder layers are called."""
    called: set[Part] = set()
    handles = []
    for part, module in parts_of(decoder_layers(model)):
        handles.append(module.register_forward_pre_hook(lambda *_, entry=part: called.add(entry)))
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def layer_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record, within the `with`, the hidden states that each decoder layer puts out, in float32 on the CPU."""
    outputs: list[Tensor] = []

    def record(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        outputs.append(hidden.detach().float().cpu())

    handles = [layer.register_forward_hook(record) for layer in decoder_layers(model)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def residual_stream(model: nn.Module) -> Iterator[dict[SubLayer, Tensor]]:
    """Record, within the `with`, the residual stream behind each sub-layer, in float32 on the CPU.

    Behind an mlp is what leaves the layer, behind a self_attn what enters the norm in front of the mlp, which is not
    seen where the mlp is pruned. Of several passes the last one counts.
    """
    seen: dict[SubLayer, Tensor] = {}
    handles = []

    def record(entry: SubLayer, states: Any) -> None:
        hidden = states[0] if isinstance(states, tuple) and states else states
        if isinstance(hidden, Tensor):
            seen[entry] = hidden.detach().float().cpu()

    for index, layer in enumerate(decoder_layers(model)):
        after = SubLayer(index, "mlp")
        handles.append(layer.register_forward_hook(lambda *call, entry=after: record(entry, call[-1])))
        if (norm := part_of(layer, "post_attention_layernorm")) is not None:
            before = SubLayer(index, "self_attn")
            handles.append(norm.register_forward_pre_hook(lambda *call, entry=before: record(entry, call[-1])))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
