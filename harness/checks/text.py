"""The text: what the candidate says is what the reference of the same plan would say, so a bad plan is no bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer

from harness.batches import random_ids
from harness.forward import unpadded
from harness.reporting.report import FoundFault
from harness.session import Session, has_tokenizer
from harness.stock import stock_config_object
from harness.text_generation import Voice, encode_prompt, random_prompts, text_prompts
from harness.text_judge import judge_text

from .candidate import candidate_runs
from .check import FaultFound, NotChecked, Numbers, fault
from .explain import cache_differs, logits_differ

_NEW_TOKENS = 16
_TEMPERATURES = {"greedy": 0.0, "sampled": 0.8}


def text(session: Session, how: str) -> Numbers:
    """Continuations of prompts, greedy or sampled, are not garbled; a plan that ruins the model is a finding."""
    prompts, tokenizer = _prompts(session)
    if session.mode.is_quantised:
        prompts = prompts[:2]  # slow on a CPU
    reference = Voice(session.reference, session.pruned_reference)
    # What the plan costs is asked once: it is the same however the model is loaded and the next token is chosen.
    ask_the_plan = session.has_base and how == "greedy" and not session.mode.is_quantised
    unpruned = Voice(session.reference) if ask_the_plan else None
    with candidate_runs(session, cached=True):
        candidate = Voice(session.model)
        verdict = judge_text(
            candidate,
            reference,
            prompts,
            precision=session.mode.precision,
            unpruned=unpruned,
            tokenizer=tokenizer,
            candidate_tokenizer=_own_tokenizer(session, prompts) if tokenizer is not None else None,
            max_new_tokens=_NEW_TOKENS,
            temperature=_TEMPERATURES[how],
        )
    if verdict.verdict == "plan ruins the model":
        session.subject.findings.append(
            f"the plan itself ruins this model: the reference is garbled too ({session.mode.name}, {verdict.reason})"
        )
    if verdict.verdict == "garbled":
        if verdict.numbers.get("run_on") or verdict.numbers.get("stops_short"):
            raise FaultFound(_ends_elsewhere(verdict.reason), numbers=verdict.numbers)
        batch = unpadded(random_ids(session.subject.config, 1, 24))
        uncached_is_right = not verdict.numbers.get("drift", 1.0) > 1e-2
        explained = (
            cache_differs(session, "dynamic", "generate", verdict.reason, True)
            if uncached_is_right
            else logits_differ(session, batch, verdict.reason)
        )
        raise FaultFound(explained, numbers=verdict.numbers)
    return verdict.numbers


def _ends_elsewhere(reason: str) -> FoundFault:
    return fault(
        "tokenizer", "ends-elsewhere", f"what the model says does not end where the reference's text does: {reason}",
        remedy="Copy generation_config.json, the tokenizer's files and the chat template from the base.",
    )  # fmt: skip


def _prompts(session: Session) -> tuple[Sequence[str | list[int]], Any]:
    """Return prompts and the tokenizer they need: texts where a tokenizer fits the vocabulary, else random tokens."""
    size = int(session.subject.config["vocab_size"])
    try:
        texts = [texts[0] for texts in text_prompts().values()][:3]
        if max(max(encode_prompt(session.tokenizer, text)) for text in texts) < size:
            return texts, session.tokenizer
    except NotChecked:
        pass
    return random_prompts(size, count=3), None


def _own_tokenizer(session: Session, prompts: Sequence[str | list[int]]) -> Any:
    if not has_tokenizer(session.subject.root):
        return session.tokenizer
    try:
        config = stock_config_object(session.subject.config)
        return AutoTokenizer.from_pretrained(session.subject.root, config=config, trust_remote_code=False)
    except Exception:  # of many kinds, by version; the check of the tokenizer's files says what is missing
        return session.tokenizer
