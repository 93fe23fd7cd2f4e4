"""Modeling code that is wrong in one way each, or odd and right, as edits of the foreign modeling file."""

from harness.faults.planting.code_edits import Edit

_END = "        return hidden_states\n\n    def fill_cache"
_DELETED = "        if self.skip_attention:\n            del self.self_attn\n"
_FILL = "            self.fill_cache(hidden_states, kwargs)\n"
_CLASS_BEGINS = '    """Qwen3Model with skipping layers."""\n'


def _returns(expression: str) -> Edit:
    return (_END, f"        hidden_states = {expression}\n{_END}")


def _louder_if(condition: str) -> Edit:
    return _returns(f"hidden_states * (1.1 if {condition} else 1)")


def _in_place_of_mlp(expression: str) -> Edit:
    return (_END, f"        if self.skip_mlp:\n            hidden_states = {expression}\n{_END}")


_COUNTS = "setattr(self, 'passes', getattr(self, 'passes', 0) + 1)"
_NOISE = "hidden_states.new_empty(hidden_states.shape).normal_()"
_ONE_MORE: Edit = ("(batch, heads, tokens, width)", "(batch, heads, tokens + 1, width)")
_ATTENDS = "hidden_states=self.input_layernorm(hidden_states), **kwargs"
_LOUDER_MLP: Edit = ("hidden_states + self.mlp(", "hidden_states + 1.1 * self.mlp(")
_CLAMPED = _returns("hidden_states.clamp(-2, 2)")
_CACHED = "sum(each.get_seq_length() for each in kwargs.values() if isinstance(each, Cache))"


def _no_mask_where(condition: str) -> Edit:
    return (_ATTENDS, f'{_ATTENDS} | ({{"attention_mask": None}} if {condition} else {{}})')


_BUFFER: tuple[Edit, ...] = (
    ("from torch import nn\n", "import torch\nfrom torch import nn\n"),
    (_DELETED, f"        self.register_buffer('gain', torch.ones(1), persistent=False)\n{_DELETED}"),
    ("hidden_states + attended", "hidden_states + self.gain * attended"),
)
_FILLED: Edit = (
    _CLASS_BEGINS,
    f"{_CLASS_BEGINS}\n    def _init_weights(self, module):\n        super()._init_weights(module)\n"
    "        if hasattr(module, 'gain'):\n            module.gain.data.fill_(1)\n",
)

_ZEROS = """

class Zeros(nn.Module):
    \"\"\"Stands in the place of a pruned module.\"\"\"

    def forward(self, hidden_states=None, **kwargs):
        return hidden_states.new_zeros(hidden_states.shape)
"""
_LAYER = "\n\nclass SkippingQwen3DecoderLayer("
# The final norm is a module of another name than in the files, which a mapping registered by the code bridges.
RENAMED: tuple[Edit, ...] = (
    (_CLASS_BEGINS, f"{_CLASS_BEGINS}\n    norm = property(lambda self: self.last_norm)\n"),
    (
        "        self.post_init()\n\n\nclass SkippingQwen3ForCausalLM",
        "        self.last_norm = self._modules.pop('norm')\n        self.post_init()\n\n\n"
        "from transformers.conversion_mapping import WeightRenaming, register_checkpoint_conversion_mapping\n\n"
        "register_checkpoint_conversion_mapping(\n    'SkippingQwen3ForCausalLM',\n"
        "    [WeightRenaming('model.norm', 'model.last_norm')],\n    overwrite=True,\n)\n\n\n"
        "class SkippingQwen3ForCausalLM",
    ),
)

# What is wrong -> the edits, and the families that are told: these, once each, and no other.
UNFILLED_BUFFER = "a buffer that no load fills"
WRONG: dict[str, tuple[tuple[Edit, ...], list[str]]] = {
    "random": ((_returns(f"hidden_states + 0.001 * {_NOISE}"),), ["code"]),
    "seldom random": ((_louder_if("hidden_states.new_empty(()).uniform_() < 0.1"),), ["code"]),
    "counts passes": ((_louder_if(f"{_COUNTS} or self.passes > 9"),), ["code"]),
    "wrong for short inputs": ((_louder_if("5 < hidden_states.shape[1] < 9"),), ["code"]),
    "wrong for long inputs": ((_louder_if("hidden_states.shape[1] > 200"),), ["code"]),
    "wrong for several rows": ((_louder_if("hidden_states.shape[0] > 4"),), ["code"]),
    "last token louder": ((_returns("hidden_states + (hidden_states == hidden_states[:, -1:]) * 0.3"),), ["code"]),
    "raises beyond 50 tokens": (((_END, f"        assert hidden_states.shape[1] < 50\n{_END}"),), ["code"]),
    "norms exchanged": (
        (("self.input_layernorm(hidden_states)", "self.post_attention_layernorm(hidden_states)"),),
        ["code"],
    ),
    "clamped": ((_CLAMPED,), ["code"]),
    "one token too many is cached": ((_ONE_MORE,), ["cache"]),
    "clamped, and one token too many is cached": ((_CLAMPED, _ONE_MORE), ["code", "cache"]),
    "wrong once 40 tokens are cached": (
        (_louder_if(f"{_CACHED} > 40"),),
        ["cache"],
    ),
    "no mask in layer 2": ((_no_mask_where("self.layer_idx == 2"),), ["code"]),
    "no mask in steps": ((_no_mask_where("hidden_states.shape[1] == 1"),), ["code"]),
    "doubled in place of a pruned mlp": ((_in_place_of_mlp("hidden_states * 2"),), ["residual"]),
    "dropped in place of a pruned mlp": ((_in_place_of_mlp("hidden_states * 0"),), ["residual"]),
    "doubled in place of a pruned attention": (
        ((_FILL, f"{_FILL}            hidden_states = hidden_states * 2\n"),),
        ["residual"],
    ),
    "the norm is added in place of a pruned mlp, and a kept mlp is louder": (
        (_in_place_of_mlp("hidden_states + self.post_attention_layernorm(hidden_states)"), _LOUDER_MLP),
        ["residual"],
    ),
    "doubled in place of a pruned attention, and a kept attention is quieter": (
        (
            (_FILL, f"{_FILL}            hidden_states = hidden_states * 2\n"),
            ("hidden_states + attended", "hidden_states + 0.9 * attended"),
        ),
        ["code"],
    ),
    "a pruned mlp runs, and a kept one is louder": (
        (("            del self.mlp\n", "            pass\n"), ("if not self.skip_mlp:", "if True:"), _LOUDER_MLP),
        ["plan"],
    ),
    UNFILLED_BUFFER: (_BUFFER, ["buffers"]),
}
RIGHT: dict[str, tuple[Edit, ...]] = {
    "random in training": (_returns(f"hidden_states + self.training * {_NOISE}"),),
    "counts passes, to no effect": (_returns(f"hidden_states * (1 if {_COUNTS} is None else 2)"),),
    "copied in place of a pruned mlp": (_in_place_of_mlp("hidden_states.clone()"),),
    "a buffer that _init_weights fills": (*_BUFFER, _FILLED),
    "zeros in place of a pruned mlp": (
        (_LAYER, f"{_ZEROS}{_LAYER}"),
        ("            del self.mlp\n", "            self.mlp = Zeros()\n"),
        ("if not self.skip_mlp:", "if True:"),
    ),
}
