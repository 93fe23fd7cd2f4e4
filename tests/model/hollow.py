"""Check that pruned modules store nothing, looking into every attribute they have."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def assert_hollow(model: Any) -> None:
    """Check that the pruned modules register nothing, and that no tensor that they reach has a byte."""
    keys = model.state_dict().keys()
    for name, module in model.pruned_modules():
        assert not list(module.parameters())
        assert not list(module.buffers())
        assert not [key for key in keys if key.startswith(f"{name}.")]
        tensors = list(_tensors_in(module, set()))
        assert tensors
        assert all(tensor.is_meta for tensor in tensors)


def _tensors_in(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield every tensor that can be reached from a module or a container, whatever attribute holds it."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, nn.Module):
        yield from _tensors_in(vars(thing), seen)
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from _tensors_in(value, seen)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from _tensors_in(value, seen)
