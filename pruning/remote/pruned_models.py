"""Models and decoder layers that can lack sub-layers: what those of every family share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from .hollow_modules import SkippedSublayer, UnreadNorm, become, children_of, hidden_states_among, hollow_out
from .per_layer_skip import MANIFEST_FILE


class PrunedLayerMixin:
    """A decoder layer that can lack sub-layers; stands before the stock class among the bases.

    `prune_self_attn` and `prune_mlp` say what it lacks. Those modules keep their classes and shapes but hold no
    parameter, and add nothing to the residual stream.
    """

    sublayers: ClassVar[Mapping[str, tuple[str, str, type[SkippedSublayer]]]]
    """Skip word -> name of the module, name of the norm that it alone reads, and what takes the module's place."""
    prune_self_attn = False
    prune_mlp = False
    # Whether the stock forward returns the hidden states alone; known once it has run.
    _returns_a_tensor: ClassVar[bool] = False

    def prune(self, skipped: frozenset[str], layer_idx: int) -> None:
        """Take out the sub-layers that the words in `skipped` name; `layer_idx` is the layer's place in the model."""
        for word, (name, norm_name, mixin) in self.sublayers.items():
            setattr(self, f"prune_{name}", word in skipped)
            if word in skipped:
                module: nn.Module = getattr(self, name)
                hollow_out(module)
                become(module, mixin)
                module.cache_slot = layer_idx  # type: ignore[assignment]  # an int
                norm: nn.Module = getattr(self, norm_name)
                become(norm, UnreadNorm)
                norm.requires_grad_(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stock forward; where nothing is left of the layer, return a view of the hidden states.

        A view, since FSDP1 fails on a layer that returns the very tensor it was given (torch 2.13.0,
        `distributed/fsdp/_runtime_utils.py`).
        """
        if not (self.prune_self_attn and self.prune_mlp):
            return super().forward(*args, **kwargs)  # type: ignore[misc]  # of the stock class behind it
        # A compiler adds zeros in kernels that run anyway, and should see nothing that changes between two calls.
        if type(self)._returns_a_tensor and not torch.compiler.is_compiling():
            hidden_states = hidden_states_among(args, kwargs)
            self.self_attn.record_tokens(hidden_states, args, kwargs)  # type: ignore[attr-defined]
            return hidden_states.view_as(hidden_states)
        output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if not torch.compiler.is_compiling():
            type(self)._returns_a_tensor = isinstance(output, torch.Tensor)
        return output


@contextmanager
def _no_values_on_meta() -> Iterator[None]:
    """Let linear modules that are built on the meta device, within the `with`, go without initial values.

    There is nothing to fill, but torch goes through it in Python for each of them, and a load builds more layers of
    ours than a stock model of as many bytes has.
    """
    reset_parameters = nn.Linear.reset_parameters

    def reset_what_holds_values(linear: nn.Linear) -> None:
        if not linear.weight.is_meta:
            reset_parameters(linear)

    nn.Linear.reset_parameters = reset_what_holds_values  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Linear.reset_parameters = reset_parameters  # type: ignore[method-assign]


class PrunedModelMixin:
    """A model whose config says which sub-layers it lacks; stands before the stock class among the bases."""

    layer_class: ClassVar[type]
    """The family's decoder layer, derived from PrunedLayerMixin and from the stock class."""
    # save_pretrained copies the modeling files and writes `auto_map`, so that what it saves loads elsewhere
    # (transformers `register_for_auto_class`, which sets this attribute).
    _auto_class: str | None

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        with _no_values_on_meta():
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]  # of the stock class behind it
        stock_layer = self.layer_class.__bases__[1]
        layers: list[Any] = [module for module in self.modules() if type(module) is stock_layer]  # type: ignore[attr-defined]
        for layer_idx, layer in enumerate(layers):
            layer.__class__ = self.layer_class
            layer.prune(config.skipped_sublayers(layer_idx), layer_idx)
        # Device maps and FSDP know what to keep together by the names of classes.
        for module in self.modules():  # type: ignore[attr-defined]
            names = getattr(module, "_no_split_modules", None)
            if names and stock_layer.__name__ in names:
                renamed = (self.layer_class.__name__ if name == stock_layer.__name__ else name for name in names)
                module._no_split_modules = type(names)(renamed)

    def tie_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Tie as transformers does, and again where a head that should be tied was taken for a stored one.

        transformers 5.3.0 does so for every class with code of its own (`modeling_utils.py`,
        `mark_tied_weights_as_initialized`; right again in 5.4.0), and leaves the head without values.
        """
        result = super().tie_weights(*args, **kwargs)  # type: ignore[misc]  # the stock class's
        embeddings, head = self.get_input_embeddings(), self.get_output_embeddings()  # type: ignore[attr-defined]
        if head is not None and head.weight.is_meta and not embeddings.weight.is_meta:
            super().tie_weights()  # type: ignore[misc]
        return result

    def pruned_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the name and the module of each pruned sub-layer."""
        for name, module in self.named_modules():  # type: ignore[attr-defined]  # of the stock class behind it
            if isinstance(module, SkippedSublayer):
                yield name, module  # type: ignore[misc]  # its other base is a module's class

    def pruned_linear_names(self) -> list[str]:
        """Return the full names of the linear modules in pruned sub-layers."""
        return [
            f"{name}.{inner_name}"
            for name, module in self.pruned_modules()
            for inner_name, inner in children_of(module)
            if isinstance(inner, nn.Linear)
        ]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, with the modeling files, and remove a manifest that would be stale."""
        config: Any = self.config  # type: ignore[attr-defined]
        modeling = type(self).__module__
        # transformers writes the entry of the class that is saved; the family's other one is in the same file.
        entries = {
            each._auto_class: f"{modeling.rpartition('.')[2]}.{each.__name__}"
            for each in vars(sys.modules[modeling]).values()
            if isinstance(each, type) and issubclass(each, PrunedModelMixin) and each is not PrunedModelMixin
        }
        config.auto_map = {**(getattr(config, "auto_map", None) or {}), **entries}
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]  # the stock class's
        manifest = os.path.join(save_directory, MANIFEST_FILE)
        if os.path.isfile(manifest):
            os.remove(manifest)
        return result
