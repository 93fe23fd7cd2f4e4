"""Buffers that a checkpoint's own code keeps without storing them: does a load leave in them what the code computes?"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.system.whose_error import ignoring_errors_of

from .batches import random_ids
from .forward import uncached_logits, unpadded
from .session import Session


def own_buffer_differences(session: Session, known: Collection[str]) -> dict[str, str]:
    """Return what is wrong with buffers that are neither stored nor `known`, by name.

    A load builds a model without values: what is not stored has to be computed afterwards, or is whatever its memory
    held. It is wrong where the class, built anew, has other values, with which it computes other logits.
    """
    model: Any = getattr(session.model, "_orig_mod", session.model)
    names = [name for name in _not_stored(model) if name not in known]
    if not names:
        return {}
    config = copy.deepcopy(getattr(model, "config", None))
    with torch.random.fork_rng(devices=[]):
        try:
            fresh = type(model)(config)
        except Exception:  # a wrapper, or a class that is not built from its config alone
            return {}
    built = dict(fresh.named_buffers())
    buffers = dict(model.named_buffers())
    other = {
        name: built[name]
        for name in names
        if name in built and not buffers[name].is_meta and buffers[name].shape == built[name].shape
        and not torch.equal(buffers[name].cpu(), built[name].to(buffers[name].dtype))
    }  # fmt: skip
    if not other or not _matter(session, {name: buffers[name] for name in other}, other):
        return {}
    return dict.fromkeys(other, "is not stored, and does not hold what its class computes when it is built")


def _not_stored(model: nn.Module) -> Iterator[str]:
    for prefix, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            if module._buffers.get(name) is not None:
                yield f"{prefix}.{name}" if prefix else name


def _matter(session: Session, buffers: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> bool:
    batch = unpadded(random_ids(session.subject.config, 1, 24))
    after = None
    with ignoring_errors_of(session.model):  # other checks tell
        before = uncached_logits(session.model, batch)
        with _holding(buffers, values):
            after = uncached_logits(session.model, batch)
    return after is not None and not torch.allclose(
        after, before, rtol=1e-5, atol=1e-5 * float(before.abs().max()), equal_nan=True
    )


@contextmanager
def _holding(buffers: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    before = {name: buffer.data for name, buffer in buffers.items()}
    try:
        for name, buffer in buffers.items():
            buffer.data = values[name].to(buffer)
        yield
    finally:
        for name, buffer in buffers.items():
            buffer.data = before[name]
