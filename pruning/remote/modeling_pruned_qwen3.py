"""Qwen3 whose decoder layers can lack their self_attn or mlp: only the differences from transformers' Qwen3."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3PreTrainedModel,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)

from .configuration_pruned_qwen3 import PrunedQwen3Config
from .hollow_modules import (
    PrunedModelMixin,
    hollow_out,
    no_initialisation_on_meta,
    record_tokens,
    refuse_adapters,
)
from .per_layer_skip import ATTENTION, MLP


class PrunedQwen3DecoderLayer(Qwen3DecoderLayer):
    """A decoder layer that skips a pruned `self_attn` or `mlp` together with the norm in front of it.

    The flags `prune_self_attn` and `prune_mlp` come from the config. A pruned module keeps its classes and
    shapes but holds no parameter; the residual stream passes it untouched.
    """

    def __init__(self, config: PrunedQwen3Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        skipped = config.skipped_sublayers(layer_idx)
        self.layer_idx = layer_idx
        self.prune_self_attn = ATTENTION in skipped
        self.prune_mlp = MLP in skipped
        if self.prune_self_attn:
            hollow_out(self.self_attn)
        if self.prune_mlp:
            hollow_out(self.mlp)
        self._freeze_unused_norms()

    def train(self, mode: bool = True) -> "PrunedQwen3DecoderLayer":
        """Set the training mode, and freeze the norms that never run.

        Here, because loading makes every parameter trainable (transformers 5.23.0, `core_model_loading.py`) and
        then calls `eval()`, and because DistributedDataParallel fails on a parameter that gets no gradient.
        """
        super().train(mode)
        self._freeze_unused_norms()
        if mode:
            self._refuse_adapters()
        return self

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Run the sub-layers that are there; shapes as in Qwen3DecoderLayer: (batch, tokens, hidden size)."""
        if torch.is_grad_enabled():
            self._refuse_adapters()
        if self.prune_self_attn:
            record_tokens(past_key_values, hidden_states, self.layer_idx, kwargs.get("cache_position"))
        else:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
            hidden_states, _ = self.self_attn(
                hidden_states=hidden_states,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                position_embeddings=position_embeddings,
                **kwargs,
            )
            hidden_states = residual + hidden_states
        if not self.prune_mlp:
            residual = hidden_states
            hidden_states = self.post_attention_layernorm(hidden_states)
            hidden_states = self.mlp(hidden_states)
            hidden_states = residual + hidden_states
        return hidden_states

    def _freeze_unused_norms(self) -> None:
        if self.prune_self_attn:
            self.input_layernorm.requires_grad_(False)
        if self.prune_mlp:
            self.post_attention_layernorm.requires_grad_(False)

    def _refuse_adapters(self) -> None:
        if self.prune_self_attn:
            refuse_adapters(self.self_attn, f"layers.{self.layer_idx}.self_attn")
        if self.prune_mlp:
            refuse_adapters(self.mlp, f"layers.{self.layer_idx}.mlp")


class PrunedQwen3Model(Qwen3Model):
    """Qwen3Model with prunable decoder layers."""

    config_class = PrunedQwen3Config
    _no_split_modules = ["PrunedQwen3DecoderLayer"]  # noqa: RUF012  # as transformers declares it
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": PrunedQwen3DecoderLayer,
        "attentions": Qwen3Attention,
    }

    def __init__(self, config: PrunedQwen3Config) -> None:
        # Not through Qwen3Model.__init__ (transformers 4.57.6, 5.0.0 and 5.23.0, whose lines these are but for the
        # layers), which would build every decoder layer twice: a quarter of the time that a small model loads.
        Qwen3PreTrainedModel.__init__(self, config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        with no_initialisation_on_meta():
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
            self.layers = nn.ModuleList(
                PrunedQwen3DecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
            )
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.has_sliding_layers = "sliding_attention" in (config.layer_types or ())
        self.post_init()


class PrunedQwen3ForCausalLM(PrunedModelMixin, Qwen3ForCausalLM):
    """Qwen3ForCausalLM without the sub-layers that `config.per_layer_config` skips."""

    config_class = PrunedQwen3Config
    _no_split_modules = ["PrunedQwen3DecoderLayer"]  # noqa: RUF012

    def __init__(self, config: PrunedQwen3Config) -> None:
        # Not through Qwen3ForCausalLM.__init__ (transformers 5.23.0), which would build the unpruned model first.
        Qwen3PreTrainedModel.__init__(self, config)
        self.model = PrunedQwen3Model(config)
        self.vocab_size = config.vocab_size
        with no_initialisation_on_meta():
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        self.keep_pruned_modules_out_of_quantisation()


# Only the installed copy registers itself. In later 5.x (seen on 5.23.0, not yet on 5.0.0) a registered class wins
# over a checkpoint's own code, so a checkpoint's copy that did so would also serve every other checkpoint that is
# loaded after it.
if __name__ == "pruning.remote.modeling_pruned_qwen3":
    AutoConfig.register(PrunedQwen3Config.model_type, PrunedQwen3Config)
    AutoModelForCausalLM.register(PrunedQwen3Config, PrunedQwen3ForCausalLM)
