"""The judge of generated text: faults are told from bad plans, correct models are left alone, on tiny models."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.reference.models import load_stock, without_sublayers
from harness.system.libraries import quiet_libraries
from harness.text.generation import Continuation, Speech, Voice, encode_prompt, random_prompts
from harness.text.judge import TextVerdict, judge_speech, judge_text
from harness.text.limits import DRIFT_LIMITS
from harness.text.measures import (
    divergence,
    expected_surprise,
    invalid_characters,
    repetition,
    surprise,
    surprise_variance,
)
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint
from tests.harness.text_faults import PRECISIONS, cache_ignored, one_weight_is_nan, patched, positions_shifted

pytestmark = pytest.mark.outermost

PLAN = PrunePlan(self_attn=[0, 2], mlp=[1])
SPEC = TinySpec(layer_types="mixed")
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Without the libraries' notices, which 8-bit gives for each layer and token."""
    with quiet_libraries():
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny checkpoint, and the same pruned by PLAN."""
    folder = tmp_path_factory.mktemp("tiny")
    base = write_tiny_checkpoint(SPEC, folder / "base")
    prune_checkpoint(base, folder / "pruned", PLAN, sync=False)
    return base, folder / "pruned"


# What is measured.


def test_divergence_is_0_for_equal_and_ln_2_for_disjoint_distributions() -> None:
    """The divergence is symmetric, does not mind a constant added to the logits, and ends at ln 2."""
    one, other = (
        torch.tensor([[1000.0, 0.0, 0.0], [1.0, 2.0, 3.0]]),
        torch.tensor([[0.0, 1000.0, 0.0], [5.0, 6.0, 7.0]]),
    )
    assert divergence(one, other).tolist() == pytest.approx([math.log(2), 0], abs=1e-9)
    assert torch.equal(divergence(one, other), divergence(other, one))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.5])
def test_expected_surprise_is_what_drawn_tokens_have(temperature: float) -> None:
    """Mean and variance of the surprise are those of many tokens that were drawn at the temperature."""
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial((logits[0] / temperature).softmax(-1), 100_000, replacement=True, generator=generator)
    surprises = surprise(logits.expand(len(drawn), -1), drawn)
    assert float(surprises.mean()) == pytest.approx(float(expected_surprise(logits, temperature)), rel=0.02)
    assert float(surprises.var()) == pytest.approx(float(surprise_variance(logits, temperature)), rel=0.05)


def test_greedy_tokens_are_the_least_surprising() -> None:
    """At temperature 0 the expected surprise is that of the most likely token, without any variance."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert torch.equal(expected_surprise(logits, 0), surprise(logits, logits.argmax(-1)))
    assert surprise_variance(logits, 0).tolist() == [0, 0]


def test_repetition_is_the_share_of_runs_that_occurred_before() -> None:
    """Repeated runs of three tokens count, in what is too short there are none."""
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([1, 2, 3, 1, 2, 3]) == 0.25
    assert repetition([7] * 12) == 0.9
    assert repetition([7, 7]) == 0


def test_invalid_characters_are_those_that_no_text_has() -> None:
    """Replacement, private and control characters count; line breaks, tabs and any script do not."""
    assert invalid_characters("a\ufffd\ue000\x07") == 0.75
    assert invalid_characters("Zeile\n\tnächste 用中文 👋") == 0
    assert invalid_characters("") == 0


# The verdict, on tiny random models without a tokenizer.


def judge_tiny(
    tiny: tuple[Path, Path],
    precision: str = "float32",
    temperature: float = 0.0,
    within: Callable[[Any], AbstractContextManager[None]] = nullcontext,
) -> TextVerdict:
    """Judge the pruned checkpoint, its model being `within` a fault."""
    base = load_stock(tiny[0], **PRECISIONS[precision])
    candidate: Any = load_pruned(tiny[1], **PRECISIONS[precision])
    return judge_text(
        Voice(candidate, lambda: within(candidate)),
        Voice(base, lambda: without_sublayers(base, PLAN.self_attn, PLAN.mlp)),
        random_prompts(SPEC.vocabulary_size),
        precision=precision,
        unpruned=Voice(base),
        temperature=temperature,
    )


@each_precision
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_correct_random_model_is_sound(tiny: tuple[Path, Path], precision: str, temperature: float) -> None:
    """What a correct model says is sound however little sense it makes, and no plan can ruin a random model."""
    verdict = judge_tiny(tiny, precision, temperature)
    assert verdict.verdict == "sound", verdict
    assert "the unpruned model knows nothing of the prompts" in verdict.reason
    assert verdict.numbers["drift"] < DRIFT_LIMITS[precision] / 100


@pytest.mark.many_cases
@each_precision
@pytest.mark.parametrize(
    ("within", "reason"),
    [
        (lambda model: cache_ignored(model, [1, 3]), "its KV cache leads it astray: cached_drift="),
        (lambda model: positions_shifted(model, 1), "its KV cache leads it astray: cached_drift="),
        (one_weight_is_nan, "NaN or infinity among the logits of 100% of the tokens"),
        (
            lambda model: patched(model.model.layers[3].mlp, "forward", lambda old: torch.zeros_like),
            "it is not the model",
        ),
    ],
    ids=["cache ignored", "positions", "nan", "kept mlp skipped"],
)
def test_fault_is_garbled(tiny: tuple[Path, Path], precision: str, within: Any, reason: str) -> None:
    """Each planted fault is seen in every precision, and the reason says where."""
    verdict = judge_tiny(tiny, precision, within=within)
    assert verdict.verdict == "garbled"
    assert verdict.reason.startswith(reason)


def test_nan_is_garbled_when_sampled(tiny: tuple[Path, Path]) -> None:
    """A model that gives NaN can be sampled from, and is garbled."""
    assert judge_tiny(tiny, temperature=1.0, within=one_weight_is_nan).verdict == "garbled"


def test_numbers_are_json(tiny: tuple[Path, Path]) -> None:
    """The numbers are plain and finite, NaN left out, and those of text absent without a tokenizer."""
    numbers = judge_tiny(tiny, within=one_weight_is_nan).numbers
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["not_finite"] == 1
    assert "drift" not in numbers
    assert "invalid_characters" not in numbers


def test_generation_leaves_the_random_state_alone(tiny: tuple[Path, Path]) -> None:
    """Sampling has a seed of its own: the same text each time, and the caller's random numbers go on as before."""
    voice = Voice(load_pruned(tiny[1], dtype=torch.float32))
    state = torch.random.get_rng_state()
    first = voice.continue_prompt([5, 6, 7], max_new_tokens=8, temperature=1.0, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == voice.continue_prompt([5, 6, 7], max_new_tokens=8, temperature=1.0, seed=3)
    assert first != voice.continue_prompt([5, 6, 7], max_new_tokens=8, temperature=1.0, seed=4)


# The verdict, on models that are functions.

VOCABULARY = 16
COUNTING = [[3, 4, 5, 6], [8, 9, 10]]


class Letters:
    """A tokenizer of single letters, `first` being token 0."""

    chat_template = None

    def __init__(self, first: str = "a") -> None:
        self.first = ord(first)

    def __call__(self, text: str, **kwargs: Any) -> Any:
        """Return the token ids of `text`, as a tokenizer of transformers does."""
        return type("Encoding", (), {"input_ids": [(ord(letter) - self.first) % VOCABULARY for letter in text]})

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        """Return the text of `ids`."""
        return "".join(chr(self.first + token) for token in ids)


def counting(step: int, certainty: float = 8.0) -> Callable[[Tensor], Tensor]:
    """Logits of a model that says, after each token, the one that is `step` further."""

    def logits(input_ids: Tensor) -> Tensor:
        return certainty * torch.nn.functional.one_hot((input_ids + step) % VOCABULARY, VOCABULARY).float()

    return logits


def speech(
    logits: Callable[[Tensor], Tensor],
    *,
    length: int = 6,
    tokenizer: Any = None,
    prompts: Any = COUNTING,
    end: int = -1,
) -> Speech:
    """What a function says greedily, to its end token at most, without logits of a cache."""
    said = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + length and (ids[-1] != end or len(ids) == len(prompt)):
            ids.append(int(logits(torch.tensor([ids]))[0, -1].argmax()))
        new_ids = ids[len(prompt) :]
        text = None if tokenizer is None else tokenizer.decode(new_ids)
        said.append(Continuation(list(prompt), new_ids, text, ended=new_ids[-1] == end))
    return Speech(said, logits, frozenset([end]))


def test_plan_that_ruins_the_model_is_no_fault() -> None:
    """A candidate that is what its plan gives is not at fault for how little that has left of the unpruned model."""
    ruined = speech(counting(2, certainty=1.0))
    verdict = judge_speech(ruined, ruined, precision="float32", unpruned=speech(counting(1)))
    assert verdict.verdict == "plan ruins the model"
    assert verdict.reason.startswith("it says what its plan gives, but plan_cost=0.")


def test_candidate_that_is_not_its_plan_is_garbled_even_where_the_plan_ruins_the_model() -> None:
    """A fault is a fault, whatever the plan."""
    verdict = judge_speech(
        speech(counting(3, certainty=1.0)),
        speech(counting(2, certainty=1.0)),
        precision="float32",
        unpruned=speech(counting(1)),
    )
    assert verdict.verdict == "garbled"


def test_repetition_that_the_reference_shares_is_sound() -> None:
    """A text that repeats one token is sound if the reference of the plan says the same."""
    stuck = speech(counting(0), length=12, prompts=[[3, 3, 3, 3], [5, 5, 5]])
    verdict = judge_speech(stuck, stuck, precision="float32", unpruned=stuck)
    assert verdict.verdict == "sound"
    assert verdict.numbers["repetition"] == 0.9
    assert verdict.reason == "it says what its plan gives: plan_cost=0, where 0.27 ruins a model"


def test_precision_that_ruins_the_model_is_garbled() -> None:
    """Equally loaded models that agree are garbled if the same plan says something else in full precision."""
    loaded = speech(counting(2))
    verdict = judge_speech(loaded, loaded, precision="8bit", unpruned=loaded, full_precision=speech(counting(1)))
    assert verdict.verdict == "garbled"
    assert verdict.reason.startswith("loading in 8bit ruins any model of this plan: precision_cost=")


def test_tokens_alone_are_judged() -> None:
    """Token ids that the reference would not have chosen are garbled, without any logits of the candidate's own."""
    reference = speech(counting(1))
    said = [replace(one, new_ids=[(5 * token) % VOCABULARY for token in one.new_ids]) for one in reference.said]
    verdict = judge_speech(Speech(said, reference.logits), reference, precision="float32")
    assert verdict.verdict == "garbled"
    assert verdict.reason.startswith("its text is not what the reference would say: excess=")


def test_running_on_past_the_end_token_is_garbled() -> None:
    """A candidate that does not stop at the reference's end token runs on."""
    verdict = judge_speech(speech(counting(1), length=10), speech(counting(1), length=10, end=12), precision="float32")
    assert verdict.verdict == "garbled"
    assert verdict.reason == "it goes on after the end token: run_on=6, but at most 0 is allowed"


def test_stopping_at_a_token_that_is_no_end_is_garbled() -> None:
    """A candidate that ends its texts with a token that ends none of the reference's stops short."""
    verdict = judge_speech(
        speech(counting(1), length=10, end=11), speech(counting(1), length=10, end=12), precision="float32"
    )
    assert verdict.verdict == "garbled"
    assert verdict.reason.startswith("its texts end with a token that is no end token: stops_short=1")


def test_terse_answers_are_sound() -> None:
    """An answer of one token, the end token, is sound if the reference says no more."""
    terse = speech(counting(1), prompts=[[3, 4], [9, 10, 4]], end=5)
    assert [one.new_ids for one in terse.said] == [[5], [5]]
    assert judge_speech(terse, terse, precision="float32", unpruned=terse).verdict == "sound"


def test_wrong_tokenizer_is_garbled_whichever_way_it_is_used() -> None:
    """A model that is right behind a wrong tokenizer says what the reference would not, read with the right one."""
    right, wrong = Letters("a"), Letters("c")
    reference = speech(counting(1), tokenizer=right)
    decoded_wrongly = speech(counting(1), tokenizer=wrong)
    encoded_wrongly = speech(counting(1), prompts=[[token - 2 for token in one] for one in COUNTING], tokenizer=right)
    for candidate in (decoded_wrongly, encoded_wrongly):
        verdict = judge_speech(candidate, reference, precision="float32", tokenizer=right)  # type: ignore[arg-type]
        assert verdict.verdict == "garbled"
        assert verdict.reason.startswith("its text is not what the reference would say")
    same = judge_speech(reference, reference, precision="float32", tokenizer=right)  # type: ignore[arg-type]
    assert same.verdict == "sound"


@pytest.mark.parametrize("precision", ["bfloat16", "8bit", "4bit"])
def test_other_kernels_may_round_otherwise(precision: str) -> None:
    """Code that is not the reference's may round otherwise in low precision, but not in float32, nor be another."""
    reference = speech(counting(1))
    rounded, another = speech(counting(1, certainty=8.5)), speech(counting(1, certainty=4.0))
    verdicts = {
        (name, kind, other): judge_speech(candidate, reference, precision=name, other_kernels=other).verdict
        for name in (precision, "float32")
        for kind, candidate in (("rounded", rounded), ("another", another))
        for other in (False, True)
    }
    assert {key for key, verdict in verdicts.items() if verdict == "sound"} == {(precision, "rounded", True)}


def test_what_the_generation_config_asks_for_is_left_out(tiny: tuple[Path, Path]) -> None:
    """Text is generated without the beams and penalties of the generation config, but ends at its end tokens."""
    model: Any = load_pruned(tiny[1], dtype=torch.float32)
    plain = Voice(model).continue_prompt([5, 6, 7], max_new_tokens=8)
    settings = model.generation_config
    settings.num_beams, settings.no_repeat_ngram_size, settings.token_healing = 3, 1, True
    assert Voice(model).continue_prompt([5, 6, 7], max_new_tokens=8) == plain
    settings.eos_token_id = [plain.new_ids[1]]
    assert Voice(model).continue_prompt([5, 6, 7], max_new_tokens=8).ended
    assert model.generation_config is settings


def test_what_cannot_be_judged_is_refused() -> None:
    """A precision without limits, texts without a tokenizer, and a reference that gives NaN raise in one line."""
    sound = speech(counting(1))
    with pytest.raises(ValueError, match=r"^precision must be one of \['4bit', .*, but got precision='float16'$"):
        judge_speech(sound, sound, precision="float16")
    with pytest.raises(ValueError, match=r"^prompts must be token ids where there is no tokenizer, but got 'Hello'$"):
        encode_prompt(None, "Hello")
    with pytest.raises(ValueError, match=r"^the reference's logits hold NaN or infinity"):
        judge_speech(sound, replace(sound, logits=counting(1, certainty=math.nan)), precision="float32")
