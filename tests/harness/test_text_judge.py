"""The judge of generated text: faults are told from bad plans, correct models are left alone, on tiny models and real.

The controls at the end reproduce the calibration of the limits in `harness/text_judge.py`; run them with `-s` to see
how far each number is from its limit.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from harness.quiet import quiet_libraries
from harness.references import load_stock, without_sublayers
from harness.text_generation import Continuation, Speech, Voice, encode_prompt, random_prompts, text_prompts
from harness.text_judge import DRIFT_LIMITS, TextVerdict, judge_speech, judge_text
from harness.text_measures import (
    divergence,
    expected_surprise,
    invalid_characters,
    repetition,
    surprise,
    surprise_variance,
)
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint
from tests.harness.twins import underflowing

PRECISIONS = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "8bit": {"dtype": torch.bfloat16, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
    "4bit": {
        "dtype": torch.bfloat16,
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    },
}
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


@contextmanager
def patched(module: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put `make(old)` in the place of the method `name` of `module`."""
    setattr(module, name, make(getattr(module, name)))
    try:
        yield
    finally:
        delattr(module, name)


@contextmanager
def cache_ignored(model: Any, layers: list[int]) -> Iterator[None]:
    """Let the attentions of these layers see, after the prompt, only the token at hand."""

    def make(forward: Any) -> Any:
        def forgetful(*args: Any, **kwargs: Any) -> Any:
            if kwargs["hidden_states"].shape[1] == 1:
                kwargs |= {"past_key_values": None, "attention_mask": None}
            return forward(*args, **kwargs)

        return forgetful

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patched(model.model.layers[layer].self_attn, "forward", make))
        yield


def positions_shifted(model: Any, shift: int) -> Any:
    """Count the positions of each token after the prompt `shift` too high."""

    def make(forward: Any) -> Any:
        def shifted(hidden: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
            return forward(hidden, position_ids + (shift if position_ids.shape[-1] == 1 else 0), *args, **kwargs)

        return shifted

    return patched(model.model.rotary_emb, "forward", make)


@contextmanager
def one_weight_is_nan(model: Any) -> Iterator[None]:
    """Put NaN in one weight of a norm."""
    weight = model.model.layers[-1].post_attention_layernorm.weight.data
    kept = weight[0].item()
    weight[0] = math.nan
    try:
        yield
    finally:
        weight[0] = kept


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


def test_what_cannot_be_judged_is_refused() -> None:
    """A precision without limits, texts without a tokenizer, and a reference that gives NaN raise in one line."""
    sound = speech(counting(1))
    with pytest.raises(ValueError, match=r"^precision must be one of \['4bit', .*, but got precision='float16'$"):
        judge_speech(sound, sound, precision="float16")
    with pytest.raises(ValueError, match=r"^prompts must be token ids where there is no tokenizer, but got 'Hello'$"):
        encode_prompt(None, "Hello")
    with pytest.raises(ValueError, match=r"^the reference's logits hold NaN or infinity"):
        judge_speech(sound, replace(sound, logits=counting(1, certainty=math.nan)), precision="float32")


# The controls, on the real checkpoint: what the limits were calibrated on, in a small selection.

PROMPTS = [text_prompts()[kind][-1] for kind in ("list", "another language")]
NEW_TOKENS = 10
REAL_PLAN = PrunePlan(self_attn=[5, 17, 20, 25, 29], mlp=[16, 17])  # the demo's
RUINOUS_PLANS = [
    PrunePlan(mlp=[0]),
    PrunePlan(self_attn=[3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 17, 28], mlp=[7, 16]),  # 14 of the least harmful ones
]
SOUND_PLANS = [PrunePlan(), PrunePlan(self_attn=[3, 5, 17], mlp=[7])]


@pytest.fixture(scope="module")
def real(real_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The real checkpoint, and the same pruned by REAL_PLAN."""
    pruned = tmp_path_factory.mktemp("real") / "pruned"
    prune_checkpoint(real_checkpoint, pruned, REAL_PLAN, sync=False)
    return real_checkpoint, pruned


class Controls:
    """Judges voices against one reference, and keeps what it found."""

    def __init__(self, base_directory: Path, precision: str) -> None:
        self.precision = precision
        self.base: Any = load_stock(base_directory, **PRECISIONS[precision])
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base_directory)
        self.unpruned = self.speak(Voice(self.base))
        self.expected: dict[float, Speech] = {}
        self.wrong: list[str] = []

    def speak(self, voice: Voice, temperature: float = 0.0, tokenizer: Any = None) -> Speech:
        """Let the voice answer the prompts."""
        return voice.speak(
            PROMPTS, max_new_tokens=NEW_TOKENS, temperature=temperature, tokenizer=tokenizer or self.tokenizer
        )

    def pruned_base(self, plan: PrunePlan) -> Voice:
        """The unpruned model without what `plan` prunes."""
        return Voice(self.base, lambda: without_sublayers(self.base, plan.self_attn, plan.mlp))

    def check(self, name: str, wanted: str, said: Speech, expected: Speech, **options: Any) -> None:
        """Judge `said`, print the numbers, and note whether the verdict is what was wanted."""
        verdict = judge_speech(said, expected, precision=self.precision, tokenizer=self.tokenizer, **options)
        decisive = (
            "drift",
            "cached_drift",
            "own_drift",
            "reference_own_drift",
            "excess",
            "plan_cost",
            "precision_cost",
        )
        numbers = {key: f"{verdict.numbers[key]:.2g}" for key in decisive if key in verdict.numbers}
        print(f"{self.precision} {name}: {verdict.verdict}, {numbers}")
        if verdict.verdict != wanted:
            self.wrong.append(f"{name}: {verdict}")

    def candidate(self, name: str, wanted: str, voice: Voice, temperature: float = 0.0, tokenizer: Any = None) -> None:
        """Check a candidate of REAL_PLAN."""
        if temperature not in self.expected:
            self.expected[temperature] = self.speak(self.pruned_base(REAL_PLAN), temperature)
        unpruned = self.unpruned if wanted == "sound" else None  # a fault is seen without it
        said = self.speak(voice, temperature, tokenizer)
        self.check(name, wanted, said, self.expected[temperature], unpruned=unpruned)


@pytest.mark.newest
@pytest.mark.real_checkpoint
def test_controls_in_float32(real: tuple[Path, Path], tmp_path: Path) -> None:
    """Sound plans and samples are sound, every fault is garbled, ruinous plans are told from faults."""
    controls = Controls(real[0], "float32")
    model: Any = load_pruned(real[1], dtype=torch.float32)
    for temperature in (0.0, 1.5):
        controls.candidate(f"sound, temperature {temperature}", "sound", Voice(model), temperature)
    for plan in SOUND_PLANS:
        said = controls.speak(controls.pruned_base(plan))
        controls.check(str(plan), "sound", said, said, unpruned=controls.unpruned)
    for plan in RUINOUS_PLANS:
        said = controls.speak(controls.pruned_base(plan))
        controls.check(str(plan), "plan ruins the model", said, said, unpruned=controls.unpruned)

    faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "cache ignored in one layer": lambda: cache_ignored(model, [27]),
        "positions off by one": lambda: positions_shifted(model, 1),
    }
    for name, fault in faults.items():
        controls.candidate(name, "garbled", Voice(model, fault))
    controls.candidate("nothing pruned", "garbled", Voice(controls.base))
    controls.candidate("one MLP more", "garbled", controls.pruned_base(REAL_PLAN | PrunePlan(mlp=[7])))
    shifted = PrunePlan(
        self_attn=[layer - 1 for layer in REAL_PLAN.self_attn], mlp=[layer - 1 for layer in REAL_PLAN.mlp]
    )
    controls.candidate("plan shifted", "garbled", controls.pruned_base(shifted))
    controls.candidate("stock class", "garbled", Voice(stock_class(real[1], tmp_path / "stock")))
    for name, edit in (
        ("vocabulary shifted", shift_vocabulary),
        ("decoder lost", lambda content: content.pop("decoder")),
    ):
        wrong = edited_tokenizer(real[0], tmp_path / name, edit)
        controls.candidate(name, "garbled", Voice(model), tokenizer=wrong)
    assert not controls.wrong


@pytest.mark.newest
@pytest.mark.real_checkpoint
@pytest.mark.parametrize("precision", ["bfloat16", "8bit", "4bit"])
def test_controls_in_other_precisions(real: tuple[Path, Path], precision: str) -> None:
    """The noise of a precision is sound, a cache that is off by one position is garbled."""
    controls = Controls(real[0], precision)
    model: Any = load_pruned(real[1], **PRECISIONS[precision])
    controls.candidate("sound", "sound", Voice(model))
    controls.candidate("positions off by one", "garbled", Voice(model, lambda: positions_shifted(model, 1)))
    assert not controls.wrong


@pytest.mark.real_checkpoint
def test_8bit_that_underflows_is_garbled(real: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint whose 8-bit load underflows is garbled although the equally loaded reference is, too."""
    directory = underflowing(real[0], tmp_path / "underflowing")
    controls = Controls(directory, "8bit")
    full: Any = load_stock(directory, dtype=torch.float32)
    said = controls.speak(controls.pruned_base(REAL_PLAN))
    original = controls.speak(Voice(full, lambda: without_sublayers(full, REAL_PLAN.self_attn, REAL_PLAN.mlp)))
    controls.check("underflow", "garbled", said, said, unpruned=controls.unpruned, full_precision=original)
    assert not controls.wrong


def stock_class(pruned: Path, directory: Path) -> Any:
    """Load a pruned checkpoint by the stock class, which fills what is missing with random weights and runs it."""
    directory.mkdir()
    config = json.loads((pruned / "config.json").read_text()) | {"model_type": "qwen3"}
    for name in ("auto_map", "per_layer_config"):
        config.pop(name, None)
    (directory / "config.json").write_text(json.dumps(config))
    for path in pruned.glob("*.safetensors*"):
        (directory / path.name).symlink_to(path)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def edited_tokenizer(base: Path, directory: Path, edit: Callable[[dict[str, Any]], Any]) -> Any:
    """Load the base's tokenizer with an edited `tokenizer.json`."""
    directory.mkdir()
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, directory)
    content = json.loads((base / "tokenizer.json").read_text())
    edit(content)
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(directory)


def shift_vocabulary(content: dict[str, Any]) -> None:
    """Give each token but the special ones the id of the next."""
    vocabulary = content["model"]["vocab"]
    special = {token["id"] for token in content["added_tokens"]}
    tokens = [token for token, index in vocabulary.items() if index not in special]
    ids = [vocabulary[token] for token in tokens]
    vocabulary |= zip(tokens, ids[1:] + ids[:1], strict=True)
