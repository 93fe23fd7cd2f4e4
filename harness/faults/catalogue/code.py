"""Faults in the modeling file: what a skipped sub-layer computes, its gate, its plan, its buffers, its ties."""

from __future__ import annotations

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import Json, plan_of
from harness.faults.planting.code_edits import Edit, edit_foreign, edit_own
from harness.faults.planting.conditions import (
    all_of,
    own_code,
    pruned_attention,
    pruned_mlp,
    something_pruned,
    tied,
    transformers_from,
    whole_layer_kept,
)

# The lines of the foreign file that the edits change.
_FLAGS = """\
        self.skip_attention = layer_idx in config.skip_attention
        self.skip_mlp = layer_idx in config.skip_mlp
"""
_REMOVALS = """\
        if self.skip_attention:
            del self.self_attn
        if self.skip_mlp:
            del self.mlp
"""
_ATTENTION_IS_SKIPPED = "        if self.skip_attention:\n            self.fill_cache"
_MLP_RUNS = "        if not self.skip_mlp:\n"
_ADD_ATTENTION = "hidden_states + attended"
_ADD_MLP = "hidden_states + self.mlp("
_LAYER_RETURNS = "        return hidden_states\n\n    def fill_cache"
_LAYER_BEGINS = '        """Run the sub-layers that are there; hidden states are (batch, tokens, hidden size)."""\n'
_MODEL_ENDS = """\
            SkippingQwen3DecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
"""
_CLASS_BEGINS = '    """Qwen3ForCausalLM with skipping layers."""\n'
_MODEL_BEGINS = '    """Qwen3Model with skipping layers."""\n'
_IMPORT = "from torch import nn\n"

# The lines of prunecheck's own files that the edits change.
_NO_LAYER_IS_PASSED_BY: Edit = ("        if not (self.prune_self_attn and self.prune_mlp):\n", "        if True:\n")
_STOCK_FORWARD = "super().forward(*args, **kwargs)  # type: ignore[misc]  # of the stock class behind it"
_UNREAD = '        """Return the hidden states that it is given."""\n        return hidden_states_among(args, kwargs)\n'
_ITS_INPUT = "        return hidden_states_among(args, kwargs)\n"

# Skipped modules stay in the tree; nothing is stored for them, so a load fills them with random weights.
RESIDENT: Edit = (_REMOVALS, "")


def _gates(gate: str) -> tuple[Edit, ...]:
    """Let every module run and multiply what it adds by a gate: `gate` makes one of the float in `value`."""
    flags = (
        "        self.skip_attention = self.skip_mlp = False\n"
        f"        self.attention_gate = {gate.format(value='float(layer_idx not in config.skip_attention)')}\n"
        f"        self.mlp_gate = {gate.format(value='float(layer_idx not in config.skip_mlp)')}\n"
    )
    return (
        (_IMPORT, f"import torch\n{_IMPORT}"),
        (_FLAGS, flags),
        (_ADD_ATTENTION, "hidden_states + self.attention_gate * attended"),
        (_ADD_MLP, "hidden_states + self.mlp_gate * self.mlp("),
    )


# Whatever a load does not find stays as the memory was; only the rotary buffers are computed.
_NOTHING_INITIALISED: Edit = (
    _MODEL_BEGINS,
    f"""{_MODEL_BEGINS}
    def _init_weights(self, module):
        if "RotaryEmbedding" in type(module).__name__:
            super()._init_weights(module)
""",
)

# As transformers 4.40 had it: the buffer is computed when the module is built, and never again.
_OLD_ROTARY = '''

class OldRotary(nn.Module):
    """The rotary embedding of earlier transformers."""

    def __init__(self, config):
        super().__init__()
        base = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float()
        self.register_buffer("inv_freq", 1.0 / (base ** (steps / config.head_dim)), persistent=False)

    @torch.no_grad()
    def forward(self, x, position_ids):
        freqs = position_ids[:, :, None].float() * self.inv_freq[None, None, :].float().to(x.device)
        emb = torch.cat((freqs, freqs), dim=-1)
        return emb.cos().to(x.dtype), emb.sin().to(x.dtype)

'''


def _forget_plan(config: Json) -> None:
    del config["skip_attention"], config["skip_mlp"]


def _plan_by_layer(config: Json) -> None:
    """Put the plan into a mapping from layer index to names, whose keys JSON makes strings."""
    self_attn, mlp = plan_of(config)
    _forget_plan(config)
    config["skip_sublayers"] = {
        str(index): [name for name, skipped in (("self_attn", self_attn), ("mlp", mlp)) if index in skipped]
        for index in sorted(self_attn | mlp)
    }


FAULTS = (
    Fault(
        id="flags-on-instance-only",
        family="plan",
        where="code",
        symptom="first",
        description="the skip flags were set on the layers of a built model; neither its code nor its config has them",
        requires=something_pruned,
        plant=edit_foreign(
            (_FLAGS, "        self.skip_attention = self.skip_mlp = False  # set on the instance\n"),
            config=_forget_plan,
        ),
    ),
    Fault(
        id="integer-keys-become-strings",
        family="plan",
        where="config",
        symptom="first",
        description="the plan maps layer indexes to names; JSON makes the keys strings, the code looks up ints",
        requires=something_pruned,
        plant=edit_foreign(
            (
                _FLAGS,
                '        self.skip_attention = "self_attn" in config.skip_sublayers.get(layer_idx, ())\n'
                '        self.skip_mlp = "mlp" in config.skip_sublayers.get(layer_idx, ())\n',
            ),
            config=_plan_by_layer,
        ),
    ),
    Fault(
        id="pruned-norm-still-added",
        family="residual",
        where="code",
        symptom="drift or first",
        description="nn.Identity takes the place of a pruned mlp, so the layer adds norm(h) to h",
        requires=pruned_mlp,
        plant=edit_foreign(
            ("            del self.mlp\n", "            self.mlp = nn.Identity()\n"),
            (_MLP_RUNS, '        if hasattr(self, "mlp"):\n'),
        ),
    ),
    Fault(
        id="pruned-norm-still-added:own",
        family="residual",
        where="code",
        symptom="drift or first",
        description="prunecheck's own layer leaves out a pruned mlp but neither its norm nor the addition",
        requires=all_of(own_code, pruned_mlp),
        plant=edit_own(
            {
                "hollow_modules.py": (
                    ("        return zeros_like(hidden_states_among(args, kwargs))\n", _ITS_INPUT),
                    (
                        _UNREAD,
                        _UNREAD.replace(
                            "return hidden_states_among(args, kwargs)", "return super().forward(*args, **kwargs)"
                        ),
                    ),
                ),
                "pruned_models.py": (_NO_LAYER_IS_PASSED_BY,),
            }
        ),
    ),
    Fault(
        id="identity-as-attention",
        family="residual",
        where="code",
        symptom="error",
        description="nn.Identity takes the place of a pruned self_attn, which the layer calls with keywords",
        requires=pruned_attention,
        plant=edit_foreign(
            ("            del self.self_attn\n", "            self.self_attn = nn.Identity()\n"),
            (_ATTENTION_IS_SKIPPED, '        if not hasattr(self, "self_attn"):\n            self.fill_cache'),
        ),
    ),
    Fault(
        id="zero-gate",
        family="gate",
        where="code",
        symptom="first, at times",
        met="huggingface/transformers#30953",
        description="a pruned sub-layer runs over memory that nothing initialised, and its output is multiplied by 0, "
        "which leaves NaN and infinity",
        requires=something_pruned,
        plant=edit_foreign(*_gates("{value}"), _NOTHING_INITIALISED),
    ),
    Fault(
        id="gate-tensor-attribute",
        family="gate",
        where="code",
        symptom="error",
        description="the gate is a plain tensor made in __init__, so a load leaves it on the meta device",
        needs=transformers_from("5.0.0", "earlier ones build tensors that are no parameters where they belong"),
        requires=something_pruned,
        plant=edit_foreign(*_gates("torch.tensor({value})")),
    ),
    Fault(
        id="gate-parameter-not-saved",
        family="gate",
        where="code",
        symptom="first",
        description="the gate is a parameter, and no file stores it, so it is whatever the memory held",
        requires=something_pruned,
        plant=edit_foreign(*_gates("nn.Parameter(torch.tensor({value}))")),
    ),
    Fault(
        id="layer-return-type",
        family="code",
        where="code",
        symptom="error",
        met="huggingface/transformers#39120",
        description="a decoder layer returns a tuple, but the model takes a tensor",
        plant=edit_foreign((_LAYER_RETURNS, "        return (hidden_states,)\n\n    def fill_cache")),
    ),
    Fault(
        id="layer-return-type:reverse",
        family="code",
        where="code",
        symptom="error",
        met="huggingface/transformers#39120",
        description="a decoder layer takes the first element of what the stock layer returns, which is no tuple but "
        "a tensor: the first sequence of the batch",
        requires=whole_layer_kept,
        plant=edit_foreign(
            (
                _LAYER_BEGINS,
                f"""{_LAYER_BEGINS}\
        if not self.skip_attention and not self.skip_mlp:
            return super().forward(hidden_states, **kwargs)[0]
""",
            )
        ),
    ),
    Fault(
        id="layer-return-type:own",
        family="code",
        where="code",
        symptom="error",
        met="huggingface/transformers#39120",
        description="prunecheck's own decoder layer returns a tuple, but the model takes a tensor",
        requires=own_code,
        plant=edit_own(
            {"pruned_models.py": (_NO_LAYER_IS_PASSED_BY, (_STOCK_FORWARD, "(super().forward(*args, **kwargs),)"))}
        ),
    ),
    Fault(
        id="inv-freq-uninitialised",
        family="buffers",
        where="code",
        symptom="first or drift",
        met="huggingface/transformers#45902",
        description="the rotary embedding is an old copy whose inv_freq is computed once, on the meta device",
        needs=transformers_from("5.0.0", "earlier ones build buffers where they belong"),
        plant=edit_foreign(
            (_IMPORT, f"import torch\n{_IMPORT}"),
            ("\n\nclass SkippingQwen3Model(", f"{_OLD_ROTARY}\nclass SkippingQwen3Model("),
            (_MODEL_ENDS, f"{_MODEL_ENDS}        self.rotary_emb = OldRotary(config)\n"),
        ),
    ),
    Fault(
        id="tied-keys-declaration-lost",
        family="tied-head",
        where="code",
        symptom="first",
        description="the class says _tied_weights_keys = None, so the head loads with random weights",
        needs=transformers_from("5.0.0", "earlier ones tie by the config alone"),
        requires=tied,
        plant=edit_foreign((_CLASS_BEGINS, f"{_CLASS_BEGINS}\n    _tied_weights_keys = None\n")),
    ),
    Fault(
        id="tied-keys-declaration-lost:list",
        family="tied-head",
        where="code",
        symptom="error",
        description="the class gives _tied_weights_keys as a list, as transformers 4 had it",
        needs=transformers_from("5.0.0", "earlier ones want a list"),
        requires=tied,
        plant=edit_foreign((_CLASS_BEGINS, f'{_CLASS_BEGINS}\n    _tied_weights_keys = ["lm_head.weight"]\n')),
    ),
)
