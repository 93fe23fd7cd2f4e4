"""Run the candidate: its errors are what is looked for, and become faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.batches import random_ids
from harness.forward import TokenBatch, uncached_logits, unpadded
from harness.session import Session

from .check import FaultFound, NotChecked
from .explain import raised


@contextmanager
def candidate_runs(session: Session, *, cached: bool = False, batch: TokenBatch | None = None) -> Iterator[None]:
    """Turn whatever the candidate's code raises within the `with` into a fault.

    `cached`: it runs with a KV cache; `batch`: on these tokens, which are tried without one if it raises.
    """
    try:
        yield
    except (FaultFound, NotChecked):
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise NotChecked(f"there is not enough memory for {session.mode.name}") from None
    except Exception as error:  # whatever a checkpoint's code raises
        if reason := reference_fails(session):
            raise NotChecked(f"the reference fails alike: {reason}") from None
        raise FaultFound(raised(session, error, cached=cached, batch=batch)) from error


def reference_fails(session: Session) -> str | None:
    """Return the error, in one line, that the equally loaded reference raises, None if it loads and runs.

    Not every model can run in every mode: bitsandbytes wants certain sizes, for one.
    """
    try:
        with session.pruned_reference() as reference:
            uncached_logits(reference, unpadded(random_ids(session.subject.config, 1, 4)))
    except Exception as error:  # of transformers, accelerate or bitsandbytes
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return None


def candidate_logits(session: Session, batch: TokenBatch) -> Tensor:
    """Return the candidate's uncached logits of a batch, computed once for equal tokens."""
    key = f"logits {batch.ids.tolist()} {batch.mask.tolist()}"
    if key not in session.memory:
        with candidate_runs(session):
            session.memory[key] = uncached_logits(session.model, batch)
    logits: Tensor = session.memory[key]
    return logits
