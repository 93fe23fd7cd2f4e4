"""Judge a tiny pruned checkpoint in every way of loading that this machine has, as `check` judges any other."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch

from harness.judge.judge import check_checkpoint
from harness.judge.runner import Progress
from harness.models.modes import DTYPES, PLACES, QUANTISATIONS, loading_modes
from harness.system.scratch import scratch_folder
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

from .record import Checkup

# Layer 0's attention, which caches ask for their length; an mlp; a whole layer; and one layer that stays as it is.
PLAN: Final = PrunePlan(self_attn=(0, 2), mlp=(1, 2))
# What is stored, as far as a verdict rests on it; and in each way of loading a load, logits and cached steps.
CHECKS: Final = (
    "stored.keys or stored.base-bytes or .load or identity.random or identity.left-padded"
    " or dynamic.one-step or dynamic.left-padded or static.one-step"
)


def examine(
    progress: Progress | None = None,
    *,
    device_map: Sequence[str] = PLACES,
    dtype: Sequence[str] = DTYPES,
    quantisation: Sequence[str] = QUANTISATIONS,
) -> Checkup:
    """Write a tiny random checkpoint, prune it and judge the result; the references are judged before they judge.

    The ways of loading are named as for `check_checkpoint`. Raises OSError where no temporary files can be written.
    """
    with scratch_folder() as folder, _quick():
        base = write_tiny_checkpoint(TinySpec(), folder / "base")
        pruned = folder / "pruned"
        prune_checkpoint(base, pruned, PLAN, sync=False)
        report = check_checkpoint(
            pruned,
            base=base,
            trust_remote_code=True,  # our own, written just now
            keyword=CHECKS,
            device_map=device_map,
            dtype=dtype,
            quantisation=quantisation,
            progress=progress,
        )
    return Checkup.of(list(loading_modes(device_map, dtype, quantisation)), report)


@contextmanager
def _quick() -> Iterator[None]:
    """Leave out what tiny models do not need, within the `with`.

    More than one thread: they only wait for each other. And garbage collections that go through all that the imports
    made, whenever a model is let go of.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)
