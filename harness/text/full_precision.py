"""What the reference says in full precision: beside it one sees that a precision by itself ruins a model.

A quantised candidate and an equally quantised reference agree, too, where both are garbled. What the reference says
unquantised is remembered from the plain way of loading, or, where that was not asked for, found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from harness.models.memory import available_bytes, too_large
from harness.models.modes import LoadingMode
from harness.models.session import Session
from harness.reference.models import load_stock, without_sublayers

from .generation import Speech, Voice
from .judge import TextVerdict, judge_speech

_KEY: Final = "speech in full precision"


def remember_full_precision(session: Session, expected: Speech, verdict: TextVerdict) -> None:
    """Keep what the reference says in the unquantised `session`, unless there is something of the kind already."""
    memory = session.subject.memory
    if _KEY not in memory:
        memory[_KEY] = _recorded(expected) if _is_telling(verdict) else None


def speech_in_full_precision(
    session: Session, prompts: Sequence[str | list[int]], tokenizer: Any, max_new_tokens: int
) -> Speech | None:
    """Return what the reference says to `prompts` unquantised, in bfloat16 if that has to be found out.

    None where it tells nothing: the plan ruins the model, the model knows nothing of the prompts, or it does not fit
    into memory.
    """
    memory, base = session.subject.memory, session.subject.base
    if _KEY not in memory and base is not None:
        memory[_KEY] = None
        if too_large(session.subject, LoadingMode("plain", "bfloat16"), available_bytes()) is None:
            model = load_stock(base.root, dtype=torch.bfloat16)
            plan = session.subject.plan
            options = {"tokenizer": tokenizer, "max_new_tokens": max_new_tokens}
            pruned = Voice(model, lambda: without_sublayers(model, plan.self_attn, plan.mlp)).speak(prompts, **options)
            verdict = judge_speech(
                pruned, pruned, precision="bfloat16", unpruned=Voice(model).speak(prompts, **options)
            )
            memory[_KEY] = _recorded(pruned) if _is_telling(verdict) else None
    speech: Speech | None = memory.get(_KEY)
    if speech is None:
        return None
    return Speech(speech.said[: len(prompts)], speech.logits, speech.end_ids)


def _is_telling(verdict: TextVerdict) -> bool:
    return verdict.knows_prompts and verdict.beyond != "plan_cost"


def _recorded(speech: Speech) -> Speech:
    """Return a speech that needs its model no longer: the logits along what it said are kept."""
    logits = {tuple(said.ids[0].tolist()): speech.logits(said.ids).bfloat16() for said in speech.said}

    def recall(ids: Tensor) -> Tensor:
        return logits[tuple(ids[0].tolist())].float()

    return Speech(speech.said, recall, speech.end_ids)
