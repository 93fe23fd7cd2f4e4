"""Run the candidate: its errors are what is looked for, and become faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from harness.checks.check import FaultFound
from harness.checks.explain.logits import raised
from harness.errors import NotChecked, Undecided
from harness.models.batches import random_ids
from harness.models.forward import TokenBatch, cache_of, input_device, uncached_logits, unpadded
from harness.models.session import Session
from harness.system.crashes import last_line
from harness.system.signals import ended_by
from harness.system.whose_error import ignoring_errors_of, raised_by


@contextmanager
def candidate_runs(
    session: Session, *, model: Any = None, cached: bool = False, batch: TokenBatch | None = None
) -> Iterator[None]:
    """Turn whatever the candidate's code raises within the `with` into a fault; what we raise ourselves is no fault.

    `model`: another load of it; `cached`: it runs with a KV cache; `batch`: on these tokens, which are tried without
    one if it raises.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise NotChecked(f"there is not enough memory for {session.mode.name}") from None
    except (Exception, SystemExit) as error:
        if ended_by(error) is not None or not is_of_the_candidate(session, error, model=model, cached=cached):
            raise
        require_mode(session)
        raise FaultFound(raised(session, error, cached=cached, batch=batch)) from error


def is_of_the_candidate(session: Session, error: BaseException, *, model: Any = None, cached: bool = False) -> bool:
    """Whether the candidate's code raised an error, or put out what made us raise it."""
    if isinstance(error, FaultFound | NotChecked | Undecided):
        return False
    return raised_by(error, session.model, model) or _puts_out_something_else(session, cached)


@torch.no_grad()
def _puts_out_something_else(session: Session, cached: bool) -> bool:
    """Whether a forward pass puts out no logits, or, asked for one, no KV cache; not if it raises."""
    ids = random_ids(session.subject.config, 1, 4).to(input_device(session.model))
    with ignoring_errors_of(session.model):
        output = session.model(ids, use_cache=cached)
        try:
            return not isinstance(getattr(output, "logits", None), Tensor) or (cached and cache_of(output) is None)
        except (AttributeError, ValueError):  # it holds no cache, or nothing at all
            return True
    return False


@contextmanager
def reference_runs(session: Session) -> Iterator[None]:
    """Leave a check undecided, within the `with`, over what the reference's model raises; all else is raised."""
    try:
        yield
    except (NotChecked, Undecided):
        raise
    except Exception as error:
        if not raised_by(error, session.reference):
            raise
        candidate_logits(session, _few_tokens(session))  # where neither runs, the mode cannot, which is told
        raise Undecided(f"the reference itself raises {last_line(error)} as {session.mode.name}") from None


def require_mode(session: Session) -> None:
    """Raise NotChecked, and leave a finding, if not even the unpruned model runs as this mode has it, without a cache.

    Not every model can: bitsandbytes wants certain sizes, for one. There is then nothing that a checkpoint could do.
    """
    if reason := reference_fails(session):
        text = f"transformers {version('transformers')} cannot run the unpruned model as {session.mode.name}: {reason}"
        session.subject.findings.append(text)
        raise NotChecked(text)


def reference_fails(session: Session) -> str | None:
    """Return the error, in one line, of the equally loaded stock model as it is, None if it loads and runs."""
    try:
        uncached_logits(session.reference, _few_tokens(session))
    except NotChecked as error:
        return str(error)
    except Exception as error:
        if not raised_by(error, session.reference):
            raise
        return last_line(error)
    return None


def _few_tokens(session: Session) -> TokenBatch:
    return unpadded(random_ids(session.subject.config, 1, 4))


def candidate_logits(session: Session, batch: TokenBatch) -> Tensor:
    """Return the candidate's uncached logits of a batch, computed once for equal tokens."""
    key = f"logits {batch.ids.tolist()} {batch.mask.tolist()}"
    if key not in session.memory:
        with candidate_runs(session):
            session.memory[key] = uncached_logits(session.model, batch)
    logits: Tensor = session.memory[key]
    return logits
