"""The text: what the candidate says is what the reference of the same plan would say, so a bad plan is not a bug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from torch import Tensor
from transformers import AutoTokenizer

from harness.checks.check import FaultFound, Numbers, fault
from harness.checks.explain.cache import text_differs
from harness.checks.explain.logits import logits_differ
from harness.checks.stored.generation_settings import settings_told_otherwise
from harness.errors import NotChecked
from harness.models.batches import random_ids
from harness.models.forward import unpadded
from harness.models.session import Session, first_line, has_tokenizer
from harness.report.outcomes import FoundFault
from harness.subject.stock import stock_config_object
from harness.system.panics import Panicked, panics_as_errors
from harness.system.whose_error import raised_by
from harness.text.full_precision import remember_full_precision, speech_in_full_precision
from harness.text.generation import Speech, Voice, decoded, encode_prompt, random_prompts, text_prompts
from harness.text.judge import TextVerdict, judge_speech

from .candidate import candidate_runs, reference_runs
from .logits import operation_of
from .reference_exam import require_own_words
from .repetition import compares_passes

Prompts = Sequence[str | list[int]]

_NEW_TOKENS: Final = 16
_TEMPERATURES: Final = {"greedy": 0.0, "sampled": 0.8}


@compares_passes
def text(session: Session, how: str) -> Numbers:
    """Continuations of prompts, greedy or sampled, are not garbled; a plan that ruins the model is a finding."""
    prompts, tokenizer = _prompts(session)
    if session.mode.is_quantised:
        prompts = prompts[:2]  # slow on a CPU
    options: dict[str, Any] = {"max_new_tokens": _NEW_TOKENS, "temperature": _TEMPERATURES[how]}
    with reference_runs(session):
        expected = Voice(session.reference, session.pruned_reference).speak(prompts, tokenizer=tokenizer, **options)
        require_own_words(session, expected)
    said = _candidate_speaks(session, prompts, tokenizer, **options)
    # What plan and precision cost is asked once: it is the same however the next token is chosen.
    ask_for_costs = session.has_base and how == "greedy"
    unpruned = exact = None
    if ask_for_costs and not session.mode.is_quantised:
        unpruned = Voice(session.reference).speak(prompts, tokenizer=tokenizer, max_new_tokens=_NEW_TOKENS)
    elif ask_for_costs:
        exact = speech_in_full_precision(session, prompts, tokenizer, _NEW_TOKENS)
    precision, operation = session.mode.precision, operation_of(session)
    try:
        verdict = judge_speech(
            said,
            expected,
            precision=precision,
            unpruned=unpruned,
            full_precision=exact,
            tokenizer=tokenizer,
            other_kernels=operation != "reference",
        )
    except ValueError as error:  # the reference gives NaN, and the candidate does not
        raise NotChecked(f"there is nothing to compare the text with: {error}") from None
    if unpruned is not None:
        remember_full_precision(session, expected, verdict)
    if session.is_given and (otherwise := _other_settings(session)):
        session.subject.findings.append(f"the generation config of the model that was given has {otherwise}")
    _tell(session, said, verdict)
    return verdict.numbers


def _candidate_speaks(session: Session, prompts: Prompts, tokenizer: Any, **options: Any) -> Speech:
    """Let the candidate speak, through its own tokenizer. What its model raises is its fault, and nothing else is."""
    model, own = session.model, _own_tokenizer(session) if tokenizer is not None else None
    with _tokenizer_runs(own):
        ids = [encode_prompt(own, prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    with candidate_runs(session, cached=True):
        speech = Voice(model).speak(ids, **options)
    said = speech.said
    if own is not None:
        with _tokenizer_runs(own):
            said = [replace(one, text=decoded(own, one.new_ids)) for one in said]

    def logits(input_ids: Tensor) -> Tensor:
        with candidate_runs(session):
            return speech.logits(input_ids)

    return Speech(said, logits, speech.end_ids)


@contextmanager
def _tokenizer_runs(tokenizer: Any) -> Iterator[None]:
    """Turn what the checkpoint's tokenizer, or its chat template, raises into a fault of its own."""
    try:
        with panics_as_errors():
            yield
    except Exception as error:
        if not _is_of_the_tokenizer(error, tokenizer):
            raise
        raise FaultFound(
            fault(
                "tokenizer",
                "tokenizer-raises",
                f"the tokenizer raises {type(error).__name__}: {first_line(error)}",
                remedy="Copy the tokenizer's files and the chat template from the base.",
            )
        ) from error


def _is_of_the_tokenizer(error: Exception, tokenizer: Any) -> bool:
    """Whether a tokenizer raised an error, or panicked, or its template did not end."""
    return isinstance(error, Panicked | TimeoutError) or raised_by(error, tokenizer)


def _other_settings(session: Session) -> str | None:
    """Return in what the generation config of a given model differs from the base's: its owner may want it so."""
    if not session.has_base:
        return None
    return settings_told_otherwise(session.model.generation_config, session.reference.generation_config)


def _tell(session: Session, said: Speech, verdict: TextVerdict) -> None:
    """Note what is no fault of the model's; raise FaultFound for what is."""
    name = session.mode.name
    if verdict.verdict == "plan ruins the model":
        session.subject.findings.append(
            f"the plan itself ruins this model: the reference is garbled too ({name}, {verdict.reason})"
        )
    elif verdict.beyond == "precision_cost" and not session.is_given:
        session.subject.findings.append(
            f"the precision itself ruins this model: the reference is garbled too ({name}, {verdict.reason})"
        )
    elif verdict.verdict == "garbled":
        raise FaultFound(_explained(session, verdict), numbers=verdict.numbers)


def _explained(session: Session, verdict: TextVerdict) -> FoundFault:
    if verdict.beyond in ("run_on", "stops_short"):
        return fault(
            "tokenizer", "ends-elsewhere",
            f"what the model says does not end where the reference's text does: {verdict.reason}",
            remedy="Copy generation_config.json, the tokenizer's files and the chat template from the base.",
        )  # fmt: skip
    if verdict.beyond == "excess":
        return fault(
            "tokenizer", "text-read-otherwise",
            f"the model computes what it should, but its text is cut into other tokens: {verdict.reason}",
            remedy="Copy the tokenizer's files and the chat template from the base.",
        )  # fmt: skip
    if verdict.beyond == "precision_cost":
        return fault(
            "quantisation", "precision-ruins-the-model", verdict.reason,
            "a stock model of the base, loaded alike, is garbled too",
            remedy="Load in bfloat16: this checkpoint's values do not fit what the quantiser computes with.",
        )  # fmt: skip
    if verdict.beyond in ("drift", "not_finite"):
        return logits_differ(session, unpadded(random_ids(session.subject.config, 1, 24)), verdict.reason)
    return text_differs(session, verdict.reason)


def _prompts(session: Session) -> tuple[Prompts, Any]:
    """Return prompts and the tokenizer they need: texts where a tokenizer fits the vocabulary, else random tokens."""
    size = int(session.subject.config["vocab_size"])
    texts = [texts[0] for texts in text_prompts().values()][:3]
    try:
        tokenizer = session.tokenizer
        with panics_as_errors():
            if max(max(encode_prompt(tokenizer, text), default=size) for text in texts) < size:
                return texts, tokenizer
    except NotChecked:  # there is none
        pass
    except TimeoutError as error:  # the base has the same template, or the check of the tokenizer would say so
        session.subject.findings.append(str(error))
    except Exception as error:
        if not _is_of_the_tokenizer(error, tokenizer):  # whose check says so
            raise
    return random_prompts(size, count=3), None


def _own_tokenizer(session: Session) -> Any:
    if not has_tokenizer(session.subject.root):
        return session.tokenizer
    config = stock_config_object(session.subject.config)
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(session.subject.root, config=config, trust_remote_code=False)
    except (
        Exception
    ):  # of many kinds, by version, over the checkpoint's files, of which the check of the tokenizer tells
        return session.tokenizer
