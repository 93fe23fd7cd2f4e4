"""Faults in the modeling file that only a KV cache shows: prefill is right, what follows is not."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import Json, config_of, edit_config, edit_tensors, plan_of, set_plan
from harness.faults.planting.code_edits import edit_file, edit_foreign, edit_own
from harness.faults.planting.conditions import (
    all_of,
    attention_after_pruned_first,
    kept_attention,
    own_code,
    pruned_first_of_a_later_kind,
    whole_layer_before_a_kept_one,
)
from harness.faults.planting.modeling_files import FOREIGN_FILE, foreign_checkpoint

# The lines of the two modeling files that the edits change.
_BEGINS = "    def forward(self, hidden_states, **kwargs):\n"
_ATTENDS = "self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)"
_FILL = "            self.fill_cache(hidden_states, kwargs)\n"
_NO_CACHE = "        if cache is None:\n            return\n"
_WITHOUT_CACHE = "**{name: each for name, each in kwargs.items() if not isinstance(each, Cache)}"
_SHAPE = "        batch, tokens = hidden_states.shape[:2]\n"
_LAYER_IDX = "        self.layer_idx = layer_idx\n"
_STALE_LAYER_IDX = "        self.layer_idx = self.self_attn.layer_idx = config.original_layers[layer_idx]\n"
_OWN_RECORD = "                record_tokens(value, hidden_states, self.cache_slot, kwargs)\n"
_LAYER_KEY = re.compile(r"model\.layers\.(\d+)\.(.*)")


def _delete_layers(checkpoint: Path, destination: Path) -> None:
    """Delete every layer that is pruned as a whole from the files, close the gaps, and keep the old `layer_idx`."""
    foreign_checkpoint(checkpoint, destination)
    before = config_of(destination)
    self_attn, mlp = plan_of(before)
    left = [index for index in range(before["num_hidden_layers"]) if index not in self_attn & mlp]
    new_index = {old: new for new, old in enumerate(left)}

    def renumber(tensors: dict[str, Tensor]) -> None:
        old_tensors = dict(tensors)
        tensors.clear()
        for key, tensor in old_tensors.items():
            match = _LAYER_KEY.fullmatch(key)
            if match is None:
                tensors[key] = tensor
            elif int(match[1]) in new_index:
                tensors[f"model.layers.{new_index[int(match[1])]}.{match[2]}"] = tensor

    def change(config: Json) -> None:
        config["num_hidden_layers"] = len(left)
        config["original_layers"] = left
        set_plan(config, *({new_index[old] for old in sublayer if old in new_index} for sublayer in (self_attn, mlp)))
        if config.get("layer_types"):
            config["layer_types"] = [config["layer_types"][index] for index in left]

    edit_tensors(destination, renumber)
    edit_config(destination, change)
    edit_file(destination / FOREIGN_FILE, ((_LAYER_IDX, _STALE_LAYER_IDX),))


# No pruned self_attn tells the cache of the tokens it has seen.
LENGTH_LOST = edit_foreign((_FILL, "            pass\n"))

FAULTS = (
    Fault(
        id="cache-argument-renamed",
        family="cache",
        where="code",
        symptom="decode",
        met="huggingface/transformers#39956",
        description="the layer takes past_key_value, and the cache comes by another name: nothing is cached",
        requires=kept_attention,
        plant=edit_foreign(
            (_BEGINS, _BEGINS.replace("**kwargs", "past_key_value=None, **kwargs")),
            (_ATTENDS, _ATTENDS.replace("**kwargs", f"past_key_value=past_key_value, {_WITHOUT_CACHE}")),
            (_FILL, _FILL.replace("kwargs", '{"past_key_value": past_key_value}')),
        ),
    ),
    Fault(
        id="layer-idx-stale",
        family="cache",
        where="code",
        symptom="error",
        met="huggingface/transformers#30508",
        description="layers pruned as a whole are deleted, and those behind them keep their layer_idx, which the "
        "cache does not have",
        requires=whole_layer_before_a_kept_one,
        plant=_delete_layers,
    ),
    Fault(
        id="layer-0-attention-decode",
        family="cache",
        where="code",
        symptom="decode",
        met="huggingface/transformers#47901",
        description="a pruned self_attn leaves the cache alone; that of layer 0 is where the cache's length is asked",
        requires=attention_after_pruned_first,
        plant=LENGTH_LOST,
    ),
    Fault(
        id="layer-0-attention-decode:own",
        family="cache",
        where="code",
        symptom="decode",
        met="huggingface/transformers#47901",
        description="prunecheck's own layer does not record the tokens that a pruned self_attn has seen",
        requires=all_of(own_code, attention_after_pruned_first),
        plant=edit_own({"hollow_modules.py": ((_OWN_RECORD, "                pass\n"),)}),
    ),
    Fault(
        id="layer-0-attention-static-cache:alone",
        family="cache",
        where="code",
        symptom="decode",
        met="huggingface/transformers#48178",
        description="a pruned self_attn leaves static caches alone, since their slots have their full size anyway; "
        "dynamic ones are right",
        requires=attention_after_pruned_first,
        plant=edit_foreign(
            (
                _NO_CACHE,
                '        if cache is None or type(cache).__name__ == "StaticCache":\n            return\n',
            )
        ),
    ),
    Fault(
        id="layer-0-attention-chunked-prefill:alone",
        family="cache",
        where="code",
        symptom="decode",
        description="a pruned self_attn records the first piece of a prompt and single tokens; further pieces are lost",
        requires=attention_after_pruned_first,
        plant=edit_foreign(
            (
                _SHAPE,
                f"{_SHAPE}        if tokens > 1 and cache.get_seq_length(self.layer_idx) > 0:\n            return\n",
            )
        ),
    ),
    Fault(
        id="first-full-attention-pruned",
        family="cache",
        where="config",
        symptom="decode",
        met="huggingface/transformers#48510",
        description="only layer 0 records the tokens of a pruned self_attn, but where sliding and full layers mix, "
        "the mask of each kind is asked of its own first layer",
        requires=pruned_first_of_a_later_kind,
        plant=edit_foreign((_FILL, f"            if self.layer_idx == 0:\n    {_FILL}")),
    ),
    Fault(
        id="first-full-attention-pruned:own",
        family="cache",
        where="config",
        symptom="decode",
        met="huggingface/transformers#48510",
        description="prunecheck's own code records the tokens of a pruned self_attn in layer 0 alone",
        requires=all_of(own_code, pruned_first_of_a_later_kind),
        plant=edit_own(
            {"hollow_modules.py": ((_OWN_RECORD, f"                if self.cache_slot == 0:\n    {_OWN_RECORD}"),)}
        ),
    ),
)
