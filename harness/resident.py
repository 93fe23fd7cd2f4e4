"""What a loaded model holds in memory."""

from collections.abc import Iterator

import torch
from torch import nn


def resident_weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors that the model's modules hold on real devices, each storage counted once.

    Parameters and buffers, and what bitsandbytes keeps beside a quantised weight: scales of 8-bit weights and the
    quantisation state of 4-bit ones (bitsandbytes 0.50.2, `nn/modules.py`). Tensors on the meta device hold nothing.
    """
    storages: dict[tuple[torch.device, int], int] = {}
    for tensor in _tensors(model):
        if tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            storages[tensor.device, storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.buffers()
    for parameter in model.parameters():
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
