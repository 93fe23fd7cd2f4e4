"""Which sub-layers a config's `per_layer_config` skips, and a config that reads it; standard library only.

transformers >= 5.14 parses `per_layer_config` itself but lets unknown skip words pass and folds "1" and "01"
into one (transformers 5.23.0, `integrations/heterogeneity/configuration_utils.py`); earlier ones keep it as a
plain dict. So it is checked here, in every version alike, before transformers sees it.
"""

import re
from collections.abc import Mapping
from typing import Any

ATTENTION = "attention"
MLP = "mlp"
SKIP_WORDS = frozenset({ATTENTION, MLP})

# The manifest of the checkpoint; `save_pretrained` removes one that would be stale.
MANIFEST_FILE = "pruning.json"

_LAYER_KEY = re.compile(r"[0-9]{1,9}")


def skipped_sublayers(per_layer_config: Mapping[Any, Any] | None, num_hidden_layers: int) -> dict[int, frozenset[str]]:
    """Return the skipped sub-layers by layer index, for the layers that skip any.

    `per_layer_config` is the mapping as it stands in `config.json`: layer index (a string of digits, or an int)
    to overrides, of which `skip` lists the sub-layers that are not there: `"attention"`, `"mlp"`.

    Raises ValueError, in one line, for a key that is no layer index or is out of range, a layer named twice,
    and a skip list that is not a list of known words.
    """
    if per_layer_config is None:
        return {}
    if not isinstance(per_layer_config, Mapping):
        raise ValueError(f"per_layer_config is {per_layer_config!r}, but should map layer indexes to overrides")
    skipped: dict[int, frozenset[str]] = {}
    keys: dict[int, object] = {}
    for key, overrides in per_layer_config.items():
        layer_idx = _layer_index(key, num_hidden_layers)
        if layer_idx in keys:
            raise ValueError(
                f"per_layer_config names layer {layer_idx} twice, as {keys[layer_idx]!r} and as {key!r}: keep one"
            )
        keys[layer_idx] = key
        if not isinstance(overrides, Mapping):
            raise ValueError(f"per_layer_config[{key!r}] is {overrides!r}, but should be a mapping of overrides")
        words = _skip_words(key, overrides.get("skip", ()))
        if words:
            skipped[layer_idx] = words
    return skipped


class PrunedConfigMixin:
    """A config whose `per_layer_config` says which sub-layers are pruned; stands before the stock class.

    `per_layer_config={"12": {"skip": ["attention"]}, "7": {"skip": ["mlp"]}}`; None or absent prunes nothing.
    Raises ValueError for unknown skip words, a layer named twice ("1" and "01") and an index out of range.
    """

    # save_pretrained copies this file and writes `auto_map`, so that what it saves loads elsewhere
    # (transformers `register_for_auto_class`, which sets this attribute).
    _auto_class: Any = "AutoConfig"
    num_hidden_layers: int  # of the stock class behind it
    per_layer_config: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Transformers gives a config class a constructor unless it has one of its own (5.24.0,
        # `configuration_utils.py`, `__init_subclass__`): this one would be passed by.
        cls.__init__ = PrunedConfigMixin.__init__  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

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
            if not self.is_heterogeneous:  # type: ignore[attr-defined]
                return frozenset()
            per_layer_config: Any = {layer_idx: {"skip": list(self.per_layer_config[layer_idx].skip)}}
        else:
            per_layer_config = getattr(self, "per_layer_config", None)
        return skipped_sublayers(per_layer_config, self.num_hidden_layers).get(layer_idx, frozenset())


def _layer_index(key: object, num_hidden_layers: int) -> int:
    if isinstance(key, str) and _LAYER_KEY.fullmatch(key):
        layer_idx = int(key)
    elif isinstance(key, int) and not isinstance(key, bool):
        layer_idx = key
    else:
        raise ValueError(f"per_layer_config has the key {key!r}, but keys should be layer indexes such as '12'")
    if not 0 <= layer_idx < num_hidden_layers:
        raise ValueError(
            f"per_layer_config names layer {layer_idx}, out of range: "
            f"num_hidden_layers={num_hidden_layers}, so layers run from 0 to {num_hidden_layers - 1}"
        )
    return layer_idx


def _skip_words(key: object, words: object) -> frozenset[str]:
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"per_layer_config[{key!r}]['skip'] is {words!r}, but should be a list such as ['mlp']")
    for word in words:
        if not isinstance(word, str) or word not in SKIP_WORDS:
            raise ValueError(
                f"per_layer_config[{key!r}]['skip'] has the unknown word {word!r}: "
                f"only {ATTENTION!r} and {MLP!r} can be skipped"
            )
    return frozenset(words)
