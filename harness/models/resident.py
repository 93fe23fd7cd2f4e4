"""What a loaded model holds in memory."""

from collections.abc import Collection, Iterator

import torch
from torch import nn


def resident_weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors that the model's modules hold on real devices, each storage counted once.

    Parameters and buffers, and what bitsandbytes keeps beside a quantised weight: scales of 8-bit weights and the
    quantisation state of 4-bit ones (bitsandbytes 0.50.2, `nn/modules.py`). Tensors on the meta device hold nothing.
    """
    return sum(resident_weight_bytes_by_device(model).values())


def resident_weight_bytes_by_device(model: nn.Module, without: Collection[str] = ()) -> dict[str, int]:
    """Return those bytes for each device that has some, such as `cuda:0`; the modules named `without` do not count."""
    storages: dict[tuple[str, int], int] = {}
    for name, module in model.named_modules():
        if any(name == left_out or name.startswith(f"{left_out}.") for left_out in without):
            continue
        for tensor in _tensors(module):
            if tensor.device.type != "meta":
                storage = tensor.untyped_storage()
                storages[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    sizes: dict[str, int] = {}
    for (device, _), size in storages.items():
        sizes[device] = sizes.get(device, 0) + size
    return sizes


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.buffers(recurse=False)
    for parameter in module.parameters(recurse=False):
        yield parameter
        for name in ("CB", "SCB"):
            if isinstance(tensor := getattr(parameter, name, None), torch.Tensor):
                yield tensor
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            for name in ("absmax", "code", "offset"):
                if isinstance(tensor := getattr(state, name, None), torch.Tensor):
                    yield tensor
            state = getattr(state, "state2", None)
