"""The config of a pruned Qwen3 checkpoint: Qwen3's own, with a checked `per_layer_config`."""

from transformers import Qwen3Config

from .per_layer_skip import PrunedConfigMixin


class PrunedQwen3Config(PrunedConfigMixin, Qwen3Config):
    """Qwen3Config whose `per_layer_config` says which sub-layers are pruned."""

    model_type = "pruned_qwen3"
