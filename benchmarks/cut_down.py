"""A stock model cut down by hand: pruned sub-layers were never built, and what is left is transformers' own.

It is what a pruned model is held against: nobody can run less. Complete decoder layers are stock ones; what is left of
the others is called as the stock layer calls it, with whatever arguments the layer is given. Attentions are numbered
anew, so that the KV cache has a slot for each kept one and none for what is pruned; right where all layers have the
same kind of attention.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from pruning import PrunePlan


class AttentionLayer(GradientCheckpointingLayer):
    """What is left of a decoder layer without its mlp."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = stock.input_layernorm, stock.self_attn

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return hidden states (batch, tokens, hidden size)."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        output: Tensor = hidden_states + attended
        return output


class MlpLayer(GradientCheckpointingLayer):
    """What is left of a decoder layer without its attention."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.post_attention_layernorm, self.mlp = stock.post_attention_layernorm, stock.mlp

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return hidden states (batch, tokens, hidden size)."""
        output: Tensor = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return output


class EmptyLayer(GradientCheckpointingLayer):
    """What is left of a decoder layer without both: the model still steps over it."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Return the hidden states."""
        return hidden_states


def cut_down_model(base: Path, pruned: Path, plan: PrunePlan, dtype: torch.dtype, device: str = "cpu") -> Any:
    """Return the cut down model of `base`, with the kept tensors that `pruned` stores, in evaluation mode."""
    config = AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
        decoder = model.base_model
        layer_class = type(decoder.layers[0])
        kept_attentions = [index for index in range(len(decoder.layers)) if index not in plan.self_attn]
        for index in range(len(decoder.layers)):
            slot = kept_attentions.index(index) if index in kept_attentions else 0
            layer = layer_class(config, slot)
            if index in plan.self_attn:
                layer = EmptyLayer() if index in plan.mlp else MlpLayer(layer)
            elif index in plan.mlp:
                layer = AttentionLayer(layer)
            decoder.layers[index] = layer
    tensors = {key: tensor for path in pruned.glob("*.safetensors") for key, tensor in load_file(path, device).items()}
    ran = model.state_dict().keys()
    tensors = {key: tensor.to(dtype) for key, tensor in tensors.items() if key in ran}  # norms may be left over
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, assign=True)
    for name, module in list(decoder.named_children()):
        if any(buffer.is_meta for buffer in module.buffers()):  # of the rotations: it is stored nowhere
            setattr(decoder, name, type(module)(config).to(device))
    model.eval()
    return model
