"""Faults that no entry of the fault library is, each made so that one check alone has to see it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_tensors
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.loading import plant_and_load
from pruning import load_pruned

NORM = "model.norm.weight"
_CLASS_BEGINS = '    """Qwen3ForCausalLM with skipping layers."""\n'
_LAYER_RETURNS = "        return hidden_states\n\n    def fill_cache"


def change_tensor(key: str, change: Callable[[Tensor], None]) -> Callable[[Path, Path], None]:
    """Return a mutation that writes a copy of a checkpoint in which `change` changed one tensor in place."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        edit_tensors(destination, lambda tensors: change(tensors[key]) if key in tensors else None)

    return plant


def _flip_a_bit(tensor: Tensor) -> None:
    tensor.view(torch.uint8)[0] ^= 1


one_bit_flipped = change_tensor(NORM, _flip_a_bit)
one_nan = change_tensor(NORM, lambda tensor: tensor[:1].fill_(torch.nan))

# One layer in the middle, whose number an explanation has to name.
layer_2_is_louder = edit_foreign(
    (
        _LAYER_RETURNS,
        f"        if self.layer_idx == 2:\n            hidden_states = hidden_states * 1.01\n{_LAYER_RETURNS}",
    )
)
norm_in_float32 = edit_foreign((_CLASS_BEGINS, f'{_CLASS_BEGINS}\n    _keep_in_fp32_modules_strict = ["q_norm"]\n'))
left_out_when_saved = edit_foreign((_CLASS_BEGINS, f'{_CLASS_BEGINS}\n    _keys_to_ignore_on_save = ["{NORM}"]\n'))


@contextmanager
def rotary_buffer_doubled(checkpoint: Path) -> Iterator[Any]:
    """Load a sound model, and double the buffer of its rotary embedding."""
    with plant_and_load(dtype=torch.float32)(checkpoint) as model:
        model.get_buffer("model.rotary_emb.inv_freq").mul_(2)
        yield model


@contextmanager
def kept_module_not_quantised(checkpoint: Path) -> Iterator[Any]:
    """Load a sound model in 8-bit, and put a module in floating point into the place of a kept, quantised one."""
    from transformers import BitsAndBytesConfig

    model: Any = load_pruned(checkpoint, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    mlp = model.model.layers[2].mlp
    mlp.up_proj = torch.nn.Linear(mlp.up_proj.in_features, mlp.up_proj.out_features, bias=False)
    yield model
