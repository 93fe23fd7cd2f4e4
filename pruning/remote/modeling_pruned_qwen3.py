"""Qwen3 whose decoder layers can lack their self_attn or mlp: the names, over what all families share."""

# transformers 4.57 copies the files that this one imports itself, not what those import (`dynamic_module_utils.py`,
# `check_imports`): so this one imports them all.

from typing import ClassVar

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3ForCausalLM, Qwen3Model

from .configuration_pruned_qwen3 import PrunedQwen3Config
from .hollow_modules import SkippedAttention, SkippedSublayer
from .per_layer_skip import ATTENTION, MLP
from .pruned_models import PrunedLayerMixin, PrunedModelMixin


class PrunedQwen3DecoderLayer(PrunedLayerMixin, Qwen3DecoderLayer):
    """Qwen3DecoderLayer that can lack sub-layers."""

    sublayers: ClassVar = {
        ATTENTION: ("self_attn", "input_layernorm", SkippedAttention),
        MLP: ("mlp", "post_attention_layernorm", SkippedSublayer),
    }


class PrunedQwen3Model(PrunedModelMixin, Qwen3Model):
    """Qwen3Model without the sub-layers that `config.per_layer_config` skips."""

    config_class = PrunedQwen3Config
    layer_class = PrunedQwen3DecoderLayer
    _auto_class = "AutoModel"


class PrunedQwen3ForCausalLM(PrunedModelMixin, Qwen3ForCausalLM):
    """Qwen3ForCausalLM without the sub-layers that `config.per_layer_config` skips."""

    config_class = PrunedQwen3Config
    layer_class = PrunedQwen3DecoderLayer
    _auto_class = "AutoModelForCausalLM"


# Only the installed copy registers itself. In later 5.x (seen on 5.23.0, not yet on 5.0.0) a registered class wins
# over a checkpoint's own code, so a checkpoint's copy that did so would also serve every other checkpoint that is
# loaded after it.
if __name__ == "pruning.remote.modeling_pruned_qwen3":
    AutoConfig.register(PrunedQwen3Config.model_type, PrunedQwen3Config)
    AutoModel.register(PrunedQwen3Config, PrunedQwen3Model)
    AutoModelForCausalLM.register(PrunedQwen3Config, PrunedQwen3ForCausalLM)
