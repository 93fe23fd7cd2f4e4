"""The residual stream of a loaded model, one sub-layer at a time, so that many streams can pass each together.

The model's own forward makes embeddings, masks and position embeddings, with its decoder layers stepped over; each
layer is then called as a module, so that whatever moves inputs and weights (device maps, disk offload) does so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import CannotRun
from harness.models.forward import decoder_layers, input_device
from harness.subject.sublayer_keys import NORM_OF
from pruning import PrunePlan, SubLayer
from pruning.plan import sublayers_of


class SublayerModel:
    """A causal language model whose sub-layers can be run one by one, without gradients and without a cache.

    `num_layers` counts its decoder layers, `pruned` is what it lacks. Raises CannotRun for layers that are not
    pre-norm with exactly the parts that Qwen3's have (transformers 5.23.0, models/qwen3/modeling_qwen3.py).
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = decoder_layers(model)
        self.num_layers = len(self.layers)
        for layer in self.layers:
            if {name for name, _ in layer.named_children()} != {*NORM_OF, *NORM_OF.values()}:
                raise CannotRun(f"{type(layer).__name__} is no plain pre-norm layer, so it cannot be run by halves")
        self.pruned = PrunePlan.of(each for each in sublayers_of(self.num_layers) if self._lacks(each))
        self._keywords: tuple[int, list[dict[str, Any]]] = (0, [])

    def embedded(self, ids: Tensor) -> Tensor:
        """Return what enters the first layer, (rows, tokens, hidden), for int64 token ids (rows, tokens)."""
        hidden, _ = self._stepped_over(ids)
        return hidden

    @contextmanager
    def by_halves(self, tokens: int) -> Iterator[Callable[[SubLayer, Tensor], Tensor]]:
        """Yield, for rows of that many tokens, a function from a sub-layer and hidden states to the update.

        The update is what the residual stream is added, of the shape of the hidden states, (rows, tokens, hidden);
        the norm in front of the sub-layer is part of it. Within the `with` the model itself does not run.
        """
        keywords = self._layer_keywords(tokens)

        def update(sublayer: SubLayer, hidden: Tensor) -> Tensor:
            layer = sublayer.layer
            result: Tensor = self.layers[layer](hidden, sublayer=sublayer.kind, **keywords[layer])
            return result

        with _forwards(self.layers, _one_half, inside_hooks=True):
            yield update

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits (..., vocabulary) of what leaves the last layer, (..., hidden)."""
        logits: Tensor = self.model.get_output_embeddings()(self.model.base_model.norm(hidden))
        return logits.float()

    @property
    def vocabulary_size(self) -> int:
        """How many logits a token has."""
        return int(self.model.config.vocab_size)

    @property
    def there(self) -> list[SubLayer]:
        """The sub-layers that are there, as they run."""
        return [each for each in sublayers_of(self.num_layers) if each not in self.pruned]

    def _lacks(self, sublayer: SubLayer) -> bool:
        return bool(getattr(self.layers[sublayer.layer], f"prune_{sublayer.kind}", False))

    def _layer_keywords(self, tokens: int) -> list[dict[str, Any]]:
        # One row alone, whose masks and position embeddings are broadcast: all rows are full, so theirs are the same.
        if self._keywords[0] != tokens:
            self._keywords = (tokens, self._stepped_over(torch.zeros((1, tokens), dtype=torch.int64))[1])
        return self._keywords[1]

    def _stepped_over(self, ids: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Run the model without its layers; return what entered the first, and the keywords that each was given."""
        entered: list[Tensor] = []
        keywords: list[dict[str, Any]] = []

        def step_over(layer: nn.Module) -> Callable[..., Tensor]:
            def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
                entered.append(hidden_states)
                keywords.append(kwargs)
                return hidden_states

            return forward

        with _forwards(self.layers, step_over, inside_hooks=False):
            self.model.base_model(input_ids=ids.to(input_device(self.model)), use_cache=False)
        return entered[0], keywords


@contextmanager
def weights_at_hand(layer: nn.Module) -> Iterator[None]:
    """Bring the offloaded weights of a layer in once, however often its modules run within the `with`.

    accelerate's hooks do so at every call of a module (accelerate 1.15.0, hooks.py, `AlignDevicesHook`), which is
    once for each batch.
    """
    with ExitStack() as stack:
        for module in layer.modules():
            hook = getattr(module, "_hf_hook", None)
            for each in getattr(hook, "hooks", (hook,)):
                if getattr(each, "offload", False):
                    stack.enter_context(_brought_in(module, each))
        yield


@contextmanager
def _brought_in(module: nn.Module, hook: Any) -> Iterator[None]:
    hook.pre_forward(module)
    hook.offload = False
    try:
        yield
    finally:
        hook.offload = True
        hook.post_forward(module, None)


def _one_half(layer: nn.Module) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, *, sublayer: str, **kwargs: Any) -> Tensor:
        normed = layer.get_submodule(NORM_OF[sublayer])(hidden_states)
        if sublayer == "mlp":
            update: Tensor = layer.get_submodule("mlp")(normed)
        else:
            update = layer.get_submodule("self_attn")(hidden_states=normed, **kwargs)[0]
        return update

    return forward


@contextmanager
def _forwards(
    layers: Sequence[nn.Module], make: Callable[[nn.Module], Callable[..., Tensor]], *, inside_hooks: bool
) -> Iterator[None]:
    """Give each layer another forward within the `with`, inside of accelerate's hook or in place of it.

    Where accelerate dispatched the model, `forward` holds its hook, which moves inputs and weights and then calls
    `_old_forward` (accelerate 1.15.0, hooks.py, add_hook_to_module).
    """
    before = [dict(layer.__dict__) for layer in layers]
    try:
        for layer in layers:
            attribute = "_old_forward" if inside_hooks and hasattr(layer, "_old_forward") else "forward"
            setattr(layer, attribute, make(layer))
        yield
    finally:
        for layer, attributes in zip(layers, before, strict=True):
            for name in ("forward", "_old_forward"):
                layer.__dict__.pop(name, None)
                if name in attributes:
                    layer.__dict__[name] = attributes[name]
