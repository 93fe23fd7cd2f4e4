"""A stock Qwen3 cut down by hand: pruned sub-layers were never built, and what is left is transformers' own.

It is what a pruned model is held against: nobody can run less. Its attentions are numbered anew, so that its KV cache
has a slot for each kept one and none for what is pruned; right where all layers have the same kind of attention.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP, Qwen3RMSNorm, Qwen3RotaryEmbedding

from pruning import PrunePlan


class CutDownLayer(GradientCheckpointingLayer):
    """A decoder layer that has what a plan keeps: `slot` numbers its self_attn in the KV cache, None if it has none."""

    def __init__(self, config: Qwen3Config, slot: int | None, *, mlp: bool) -> None:
        super().__init__()
        self.has_attention, self.has_mlp = slot is not None, mlp
        self.attention_type = "full_attention"
        if slot is not None:
            self.input_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.self_attn = Qwen3Attention(config, slot)
        if mlp:
            self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.mlp = Qwen3MLP(config)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Run what is there; hidden states are (batch, tokens, hidden size)."""
        if self.has_attention:
            attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
            hidden_states = hidden_states + attended
        if self.has_mlp:
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


def cut_down_model(
    base: Path, pruned: Path, plan: PrunePlan, dtype: torch.dtype, device: str = "cpu"
) -> Qwen3ForCausalLM:
    """Return the cut down model of `base`, with the kept tensors that `pruned` stores, in evaluation mode."""
    config = Qwen3Config.from_pretrained(base)
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
        slots = iter(range(config.num_hidden_layers))
        model.model.layers = nn.ModuleList(
            CutDownLayer(config, None if index in plan.self_attn else next(slots), mlp=index not in plan.mlp)
            for index in range(config.num_hidden_layers)
        )
    tensors = {key: tensor for path in pruned.glob("*.safetensors") for key, tensor in load_file(path, device).items()}
    ran = model.state_dict().keys()
    tensors = {key: tensor.to(dtype) for key, tensor in tensors.items() if key in ran}  # norms may be left over
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, assign=True)
    model.model.rotary_emb = Qwen3RotaryEmbedding(config).to(device)  # its buffer is stored nowhere
    model.eval()
    return model
