"""Says whether what a pruned model generates is garbled, and whether the model or the plan is to blame.

Three models speak. The **candidate** is the pruned model under test, the **reference** what its plan should give
(`references.identity_reference`), equally loaded, and the **unpruned** model tells what the plan costs. A text is never
judged by its looks: a correct model may repeat itself, answer in one word, or be ruined by its plan.

* "garbled" is a fault: the candidate's next-token distributions are not the reference's, or it does not stop where
  the reference would, or its text is not what the reference would say.
* "plan ruins the model" is none: the candidate is what its plan gives, but that has little left of the unpruned model.

The text is generated over the candidate's KV cache and scored by the reference in one pass without a cache. Looks are
among the numbers all the same, as evidence for people.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .generation import Continuation, Speech, Voice
from .limits import DRIFT_LIMITS, PLAN_COST_LIMIT, PRECISION_COST_LIMIT, STANDARD_ERRORS, limits_of
from .measures import (
    divergence,
    entropy,
    expected_surprise,
    invalid_characters,
    repetition,
    surprise,
    surprise_variance,
)

# A model knows the prompts if they surprise it by so much less than a uniform choice. The real checkpoint: at least 3.2
# (when 8-bit underflows), else 4.8 less; tiny random ones: 0.8 to 2 more.
_CHANCE_MARGIN: Final = 1.0

Word = Literal["sound", "garbled", "plan ruins the model"]


@dataclass(frozen=True)
class TextVerdict:
    """The verdict, why in one line, what was measured (see `judge_speech`), finite numbers only, and their limits.

    `beyond` names the number that decided against the model, None for a sound one.
    """

    verdict: Word
    reason: str
    numbers: dict[str, float]
    limits: dict[str, float]
    beyond: str | None

    @property
    def knows_prompts(self) -> bool:
        """Whether the unpruned model was asked, and knows enough of the prompts for a plan's cost to mean anything."""
        return _knows_prompts(self.numbers)


def judge_text(
    candidate: Voice,
    reference: Voice,
    prompts: Sequence[str | Sequence[int]],
    *,
    precision: str,
    unpruned: Voice | None = None,
    full_precision: Voice | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    candidate_tokenizer: PreTrainedTokenizerBase | None = None,
    max_new_tokens: int = 24,
    temperature: float = 0.0,
    seed: int = 0,
) -> TextVerdict:
    """Let all voices continue `prompts` and judge what the candidate says.

    Args:
        candidate: The pruned model under test.
        reference: What its plan should give, loaded in the same precision.
        prompts: Texts, which need `tokenizer`, or token ids.
        precision: Of candidate, reference and `unpruned`: "float32", "bfloat16", "8bit" or "4bit".
        unpruned: The unpruned model; without it nothing is said about the plan.
        full_precision: The reference in float32; without it, nothing is said about what the precision alone ruins.
        tokenizer: The unpruned checkpoint's.
        candidate_tokenizer: The pruned checkpoint's; `tokenizer` if not given.
        max_new_tokens: At most so many tokens are generated for each prompt.
        temperature: 0 is greedy, else candidate and reference sample; the others are always greedy.
        seed: Of the sampling; each prompt has its own.

    Raises:
        ValueError: As `judge_speech`, or for texts without a tokenizer.
    """
    said = candidate.speak(
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        tokenizer=candidate_tokenizer or tokenizer,
    )
    expected = reference.speak(
        prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, tokenizer=tokenizer
    )
    original, exact = (
        None if voice is None else voice.speak(prompts, max_new_tokens=max_new_tokens, tokenizer=tokenizer)
        for voice in (unpruned, full_precision)
    )
    return judge_speech(
        said, expected, precision=precision, unpruned=original, full_precision=exact, tokenizer=tokenizer
    )


def judge_speech(
    candidate: Speech,
    reference: Speech,
    *,
    precision: str,
    unpruned: Speech | None = None,
    full_precision: Speech | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    other_kernels: bool = False,
) -> TextVerdict:
    """Judge what the candidate said, given what the others said to the same prompts, in the same order.

    The arguments are those of `judge_text`, but for the voices: what each said, and `other_kernels`: whether the
    candidate computes the same by code that is not the reference's. The numbers are means over the tokens of all
    prompts, in nats where nothing else is said:

    * `drift`: divergence of candidate and reference without a cache, along what the reference said;
    * `cached_drift`: the same, both over their caches, as far as they said the same;
    * `own_drift`: of the candidate over its cache and the reference without, along what the candidate said;
    * `excess`: surprise of the reference at the candidate's text, beyond its own text's and what chance explains;
    * `run_on`, `stops_short`: tokens after an end token; share of the texts that end with a token that is none;
    * `plan_cost`: divergence of the reference from the unpruned model, along the prompts and what that said;
    * `precision_cost`: divergence of the reference from full precision, along what that said;
    * `prompt_surprise`: of the unpruned model at the prompts, and `chance`, that of a uniform choice of tokens;
    * `surprise`, `unpruned_surprise`: of the reference and the unpruned model at what the candidate said;
    * `entropy`, `repetition`, `invalid_characters`: of what the candidate said, the last two as shares;
    * `not_finite`: share of the tokens for which the candidate's logits hold NaN or infinity;
    * `reference_` and a name: the same of what the reference said.

    Raises:
        ValueError: An unknown precision, or a reference that gives NaN where the candidate does not.
    """
    if precision not in DRIFT_LIMITS:
        raise ValueError(f"precision must be one of {sorted(DRIFT_LIMITS)}, but got precision={precision!r}")
    numbers = _compare(candidate, reference, tokenizer)
    if unpruned is not None:
        numbers |= _compare_with_unpruned(candidate, reference, unpruned)
    if full_precision is not None:
        numbers["precision_cost"] = _cost(full_precision, reference)
    limits = limits_of(numbers, precision, other_kernels=other_kernels)
    word, beyond, reason = _decide(numbers, limits, precision)
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return TextVerdict(word, reason, finite, limits, beyond)


def _compare(candidate: Speech, reference: Speech, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, float]:
    """Return the numbers that need candidate and reference alone."""
    pool: dict[str, list[Tensor]] = defaultdict(list)  # one or more entries a prompt, averaged at the end
    for said, expected in zip(candidate.said, reference.said, strict=True):
        scores = reference.logits(expected.ids)[0, :-1]  # (tokens of prompt and text, vocabulary)
        uncached = candidate.logits(expected.ids)[0, :-1]
        pool["drift"].append(divergence(uncached, scores))
        pool["not_finite"].append(~uncached.isfinite().all(-1))
        pool["reference_not_finite"].append(~scores.isfinite().all(-1))
        if said.step_logits is not None and expected.step_logits is not None and said.prompt_ids == expected.prompt_ids:
            same = _same_steps(said, expected)
            pool["cached_drift"].append(divergence(said.step_logits[:same], expected.step_logits[:same]))
        past_end = [index for index, token in enumerate(said.new_ids, start=1) if token in reference.end_ids]
        pool["run_on"].append(torch.tensor([len(said.new_ids) - past_end[0] if past_end else 0]))
        pool["stops_short"].append(torch.tensor([said.ended and not past_end]))

        expected_scores = scores[len(expected.prompt_ids) - 1 :]  # (new tokens, vocabulary)
        heard = _as_heard(said, expected, tokenizer, reference.end_ids)
        own_scores = expected_scores if said.ids.equal(expected.ids) else reference.logits_of_new(said)
        heard_scores = own_scores if heard is said else reference.logits_of_new(heard)
        for prefix, speech, one, steps, read, read_scores in (
            ("", candidate, said, own_scores, heard, heard_scores),
            ("reference_", reference, expected, expected_scores, expected, expected_scores),
        ):
            chosen_by = speech.logits_of_new(one) if one.step_logits is None else one.step_logits
            pool[f"{prefix}not_finite"].append(~chosen_by.isfinite().all(-1))
            pool[f"{prefix}own_drift"].append(divergence(chosen_by, steps))
            pool[f"{prefix}entropy"].append(entropy(chosen_by))
            pool[f"{prefix}repetition"].append(torch.tensor([repetition(one.new_ids)], dtype=torch.float64))
            if one.text is not None:
                pool[f"{prefix}invalid_characters"].append(
                    torch.tensor([invalid_characters(one.text)], dtype=torch.float64)
                )
            surprises = surprise(read_scores, torch.tensor(read.new_ids))
            pool[f"{prefix}surprise"].append(surprises)
            pool[f"{prefix}excess"].append(surprises - expected_surprise(read_scores, one.temperature))
            pool[f"{prefix}variance"].append(surprise_variance(read_scores, one.temperature))

    numbers = {name: float(torch.cat(values).double().mean()) for name, values in pool.items()}
    variance = sum(numbers.pop(name) / sum(map(len, pool[name])) for name in ("variance", "reference_variance"))
    numbers["excess"] -= numbers.pop("reference_excess") + STANDARD_ERRORS * math.sqrt(variance)
    return numbers


def _same_steps(said: Continuation, expected: Continuation) -> int:
    """Return how many new tokens were chosen after the same tokens."""
    pairs = zip(said.new_ids, expected.new_ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return min(same + 1, len(said.new_ids), len(expected.new_ids))  # also the step that chose another token


def _as_heard(
    said: Continuation,
    expected: Continuation,
    tokenizer: PreTrainedTokenizerBase | None,
    end_ids: frozenset[int],
) -> Continuation:
    """Return `said` as whoever has the right tokenizer reads it: the right prompt, and the tokens of its text."""
    if tokenizer is None or said.text is None:
        return said
    # Encoding is not the inverse of decoding, so tokens stay as they are unless the candidate's tokenizer is another.
    if said.prompt_ids == expected.prompt_ids and said.text == tokenizer.decode(
        said.new_ids, skip_special_tokens=False
    ):
        return said
    read = tokenizer(said.text, add_special_tokens=False).input_ids or sorted(end_ids)[:1] or expected.prompt_ids[-1:]
    return replace(said, prompt_ids=expected.prompt_ids, new_ids=read, step_logits=None)


def _compare_with_unpruned(candidate: Speech, reference: Speech, unpruned: Speech) -> dict[str, float]:
    """Return what the plan costs, and whether the unpruned model knows enough for that to mean anything."""
    pool: dict[str, list[Tensor]] = defaultdict(list)
    for known, said in zip(unpruned.said, candidate.said, strict=True):
        logits = unpruned.logits(known.ids)[0, :-1]  # (tokens of prompt and text, vocabulary)
        start = len(known.prompt_ids) - 1
        pool["prompt_surprise"].append(surprise(logits[:start], torch.tensor(known.prompt_ids[1:])))
        pool["plan_cost"].append(divergence(logits, reference.logits(known.ids)[0, :-1]))
        pool["unpruned_surprise"].append(surprise(unpruned.logits_of_new(said), torch.tensor(said.new_ids)))
    numbers = {name: float(torch.cat(values).mean()) for name, values in pool.items()}
    return numbers | {"chance": math.log(logits.shape[-1])}


def _cost(original: Speech, reference: Speech) -> float:
    """Return the mean divergence of the reference from `original` along what that said."""
    costs = [divergence(original.logits_of_new(said), reference.logits_of_new(said)) for said in original.said]
    return float(torch.cat(costs).mean())


_FAULTS: Final = {
    "drift": "it is not the model that its plan gives",
    "cached_drift": "its KV cache leads it astray",
    "own_drift": "its KV cache leads it astray",
    "run_on": "it goes on after the end token",
    "stops_short": "its texts end with a token that is no end token",
    "excess": "its text is not what the reference would say",
}


def _knows_prompts(numbers: dict[str, float]) -> bool:
    return "plan_cost" in numbers and numbers["prompt_surprise"] <= numbers["chance"] - _CHANCE_MARGIN


def _decide(numbers: dict[str, float], limits: dict[str, float], precision: str) -> tuple[Word, str | None, str]:
    """Return the verdict, the number that decided, and why. What is not within a limit is beyond it: NaN, too."""
    if numbers["not_finite"]:
        share = f"{numbers['not_finite']:.0%}"
        return "garbled", "not_finite", f"NaN or infinity among the logits of {share} of the tokens"
    if numbers["reference_not_finite"]:
        raise ValueError("the reference's logits hold NaN or infinity, so nothing can be compared with them")

    def is_beyond(name: str) -> bool:
        return name in numbers and not numbers[name] <= limits[name]

    for name, fault in _FAULTS.items():
        if is_beyond(name):
            return "garbled", name, f"{fault}: {name}={numbers[name]:.3g}, but at most {limits[name]:g} is allowed"
    plan = ""
    if _knows_prompts(numbers):
        plan = f"plan_cost={numbers['plan_cost']:.3g}, where {PLAN_COST_LIMIT:g} ruins a model"
        if is_beyond("plan_cost"):
            return "plan ruins the model", "plan_cost", f"it says what its plan gives, but {plan}"
    if is_beyond("precision_cost"):
        cost = f"precision_cost={numbers['precision_cost']:.3g}, but at most {PRECISION_COST_LIMIT:g} is allowed"
        return "garbled", "precision_cost", f"loading in {precision} ruins any model of this plan: {cost}"
    if plan:
        return "sound", None, f"it says what its plan gives: {plan}"
    known = (
        "the unpruned model knows nothing of the prompts" if "plan_cost" in numbers else "no unpruned model was given"
    )
    return "sound", None, f"it says what its plan gives; {known}, so nothing is said about the plan"
