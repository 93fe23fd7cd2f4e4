"""What a load should hold, told from the stored shapes alone, for each way of loading.

The kept elements in the dtype that was asked for, or as bitsandbytes has them, plus the state that quantisation adds,
less what lies on the disk. No model is looked at.
"""

import json
from pathlib import Path

import transformers
from safetensors import safe_open

from harness.models.modes import LoadingMode
from pruning import PrunePlan

BYTES = {"float32": 4, "bfloat16": 2, "8bit": 2, "4bit": 2}  # an element of what is not quantised

# 8-bit: a byte an element, and a float32 a row (bitsandbytes 0.50.2, `nn/modules.py`, `Int8Params`: CB and SCB).
_ROW_BYTES = 4
# 4-bit: half a byte an element, a float32 a block of 64, and 16 code values in float32 (`functional.py`,
# `quantize_4bit`, without double quantisation).
_BLOCK, _BLOCK_BYTES, _CODE_BYTES = 64, 4, 16 * 4


def predicted_bytes(checkpoint: Path, mode: LoadingMode, plan: PrunePlan) -> int:
    """Return the bytes of all tensors that a load of a Qwen3 checkpoint, pruned by `plan` or not, should hold."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    device_map = mode.arguments(config["num_hidden_layers"], plan, checkpoint).get("device_map")
    places = device_map if isinstance(device_map, dict) else {}
    on_disk = tuple(f"{name}." for name, place in places.items() if place == "disk")
    held = sum(
        _tensor_bytes(name, shape, mode.precision)
        for name, shape in stored_shapes(checkpoint).items()
        if not name.startswith(on_disk)
    )
    return held + _rotary_bytes(config["head_dim"])


def _tensor_bytes(name: str, shape: list[int], precision: str) -> int:
    elements = 1
    for size in shape:
        elements *= size
    # Of the linear modules bitsandbytes leaves out the head.
    if not name.endswith("_proj.weight") or precision not in ("8bit", "4bit"):
        return elements * BYTES[precision]
    if precision == "8bit":
        return elements + shape[0] * _ROW_BYTES
    return -(-elements // 2) + -(-elements // _BLOCK) * _BLOCK_BYTES + _CODE_BYTES


def _rotary_bytes(head_dim: int) -> int:
    """Return the bytes of the frequencies, float32 in any load and stored nowhere; since 5.0 there is a copy of them.

    (transformers 4.57.6, 5.0.0 and 5.23.0, `models/qwen3/modeling_qwen3.py`, `original_inv_freq`.)
    """
    copies = 1 if transformers.__version__.startswith("4.") else 2
    return copies * head_dim // 2 * 4


def stored_shapes(checkpoint: Path) -> dict[str, list[int]]:
    """Return the shape of each stored tensor by its key."""
    shapes: dict[str, list[int]] = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # no dict
    return shapes
