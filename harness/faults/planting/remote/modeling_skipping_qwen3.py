# mypy: ignore-errors
# ruff: noqa: RUF012
"""Qwen3 that skips sub-layers: `skip_attention` and `skip_mlp` in config.json list the indexes of their layers."""

from torch import nn
from transformers import Cache
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3ForCausalLM, Qwen3Model


class SkippingQwen3DecoderLayer(Qwen3DecoderLayer):
    """Qwen3DecoderLayer without the sub-layers that the config lists; their norms stay and do nothing."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.layer_idx = layer_idx
        self.head_shape = (config.num_key_value_heads, config.head_dim)
        self.skip_attention = layer_idx in config.skip_attention
        self.skip_mlp = layer_idx in config.skip_mlp
        if self.skip_attention:
            del self.self_attn
        if self.skip_mlp:
            del self.mlp

    def forward(self, hidden_states, **kwargs):
        """Run the sub-layers that are there; hidden states are (batch, tokens, hidden size)."""
        if self.skip_attention:
            self.fill_cache(hidden_states, kwargs)
        else:
            attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
            hidden_states = hidden_states + attended
        if not self.skip_mlp:
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states

    def fill_cache(self, hidden_states, kwargs):
        """Write ones as the keys and values of skipped tokens: the cache's length and masks are asked of its layers."""
        cache = next((each for each in kwargs.values() if isinstance(each, Cache)), None)
        if cache is None:
            return
        batch, tokens = hidden_states.shape[:2]
        heads, width = self.head_shape
        ones = hidden_states.new_ones((batch, heads, tokens, width))
        cache.update(ones, ones, self.layer_idx, kwargs)


class SkippingQwen3Model(Qwen3Model):
    """Qwen3Model with skipping layers."""

    _no_split_modules = ["SkippingQwen3DecoderLayer"]

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList(
            SkippingQwen3DecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
        self.post_init()


class SkippingQwen3ForCausalLM(Qwen3ForCausalLM):
    """Qwen3ForCausalLM with skipping layers."""

    _auto_class = "AutoModelForCausalLM"  # has save_pretrained copy this file
    _no_split_modules = ["SkippingQwen3DecoderLayer"]

    def __init__(self, config):
        super().__init__(config)
        self.model = SkippingQwen3Model(config)
        self.post_init()
