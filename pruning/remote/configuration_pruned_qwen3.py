"""The config of a pruned Qwen3 checkpoint: Qwen3's own, with a checked `per_layer_config`."""

from typing import Any

from transformers import Qwen3Config

from .per_layer_skip import skipped_sublayers


class PrunedQwen3Config(Qwen3Config):
    """Qwen3Config whose `per_layer_config` says which sub-layers are pruned.

    `per_layer_config={"12": {"skip": ["attention"]}, "7": {"skip": ["mlp"]}}`; None or absent prunes nothing.
    Raises ValueError for unknown skip words, a layer named twice ("1" and "01") and an index out of range.
    """

    model_type = "pruned_qwen3"
    # save_pretrained copies this file and writes `auto_map`, so that what it saves loads elsewhere
    # (transformers `register_for_auto_class`, which sets this attribute).
    _auto_class = "AutoConfig"

    def __init__(self, *args: Any, per_layer_config: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Kept by us in a form that is the same in every version: transformers >= 5.14 makes `per_layer_config`
        # a property that returns one config a layer.
        skipped_sublayers(per_layer_config, self.num_hidden_layers)
        if per_layer_config:
            # As strings: before 5.14 the config is written with sorted keys, and an int does not sort beside a string.
            self.per_layer_config = {str(key): overrides for key, overrides in per_layer_config.items()}

    def skipped_sublayers(self, layer_idx: int) -> frozenset[str]:
        """Return the words (`"attention"`, `"mlp"`) that one layer skips; raises ValueError for any other."""
        if hasattr(type(self), "per_layer_config"):  # transformers >= 5.14: a sequence of configs
            if not self.is_heterogeneous:
                return frozenset()
            per_layer_config: Any = {layer_idx: {"skip": list(self.per_layer_config[layer_idx].skip)}}
        else:
            per_layer_config = getattr(self, "per_layer_config", None)
        return skipped_sublayers(per_layer_config, self.num_hidden_layers).get(layer_idx, frozenset())
