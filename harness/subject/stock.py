"""The stock model behind a checkpoint: the class of transformers itself, its config, and what it stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config
from transformers.models.auto import configuration_auto

from .untrusted_files import MOST_LAYERS

# The families whose decoder layers the references know; see `references`.
_FAMILY: Final = "qwen3"
# transformers keeps the table, but does not export its name in every version.
STOCK_MODEL_TYPES: Final = frozenset(vars(configuration_auto)["CONFIG_MAPPING_NAMES"])
# What belongs to the checkpoint as a file, or to whoever pruned it, and not to the unpruned model.
_NOT_OF_THE_MODEL: Final = (
    "auto_map", "architectures", "per_layer_config", "model_type", "transformers_version", "_name_or_path",
    "quantization_config", "_attn_implementation", "attn_implementation", "_attn_implementation_internal",
)  # fmt: skip


def stock_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's config.json says of the unpruned stock model, as the stock config takes it.

    Raises ValueError, in one line, if it is no config of a Qwen3, pruned or not, under whatever model type.
    """
    if "num_hidden_layers" not in config or "hidden_size" not in config:
        raise ValueError("config.json says neither num_hidden_layers nor hidden_size")
    layers = config["num_hidden_layers"]
    if isinstance(layers, int) and layers > MOST_LAYERS:  # each would be built, if only on the meta device
        raise ValueError(f"num_hidden_layers is {layers}, more than any model has")
    model_type = config.get("model_type")
    # A type that transformers does not know is someone's own, made from whatever stock class.
    if model_type != _FAMILY and model_type in STOCK_MODEL_TYPES:
        raise ValueError(f"model_type is {model_type!r}, but only models of {_FAMILY!r} are judged")
    return {name: value for name, value in config.items() if name not in _NOT_OF_THE_MODEL}


def stock_config_object(config: Mapping[str, Any]) -> Any:
    """Return the stock config object; raises ValueError, in one line, for values that it refuses."""
    try:
        return Qwen3Config(**config)
    except Exception as error:  # validation raises errors of several kinds, by version
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"the stock config refuses config.json: {' '.join(reason)[:300]}") from None


def empty_stock_model(config: Mapping[str, Any]) -> PreTrainedModel:
    """Return the stock model of a config, all parameters on the meta device: structure without a byte."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(stock_config_object(config))
    return model


def stock_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of what a stock model stores, a tied head left out; raises ValueError as above."""
    return dict(_stock_shapes(json.dumps(config, sort_keys=True)))


@cache
def _stock_shapes(config_text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    try:
        model = empty_stock_model(json.loads(config_text))
    except ValueError:
        raise
    except Exception as error:  # sizes that do not go together
        raise ValueError(f"no stock model can be built from config.json: {error}") from None
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    return tuple(
        (key, tuple(tensor.shape))
        for key, tensor in model.state_dict().items()
        if not (tied and key.startswith("lm_head."))
    )
