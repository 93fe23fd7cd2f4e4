"""What the experiments of the post-mortem share: what is asked, who answers and who judges, and the record of it.

The record, `fixtures/post_mortem.json`, holds what each case said on each version of transformers it was written on;
the tables of `docs/garbled-output.md` are made from it. Whoever sets PRUNECHECK_REWRITE=1 and runs
`tests/harness/test_post_mortem.py` writes the answers of the version at hand into both.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, DynamicCache

from harness.cli.demo import bundled_plan, bundled_prompts
from harness.faults import FAULTS
from harness.faults.fault import Plant
from harness.faults.planting.loading import from_own_code, scratch_checkpoint
from harness.models.forward import with_cache
from harness.reference.models import load_stock, without_sublayers
from harness.text.generation import Continuation, Speech, Voice, encode_prompt
from harness.text.judge import TextVerdict, judge_speech
from pruning import PrunePlan, prune_checkpoint

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "fixtures" / "post_mortem.json"
PAGE = ROOT / "docs" / "garbled-output.md"
WRITING = bool(os.environ.get("PRUNECHECK_REWRITE"))

PROMPT = bundled_prompts()[0]
PLAN = bundled_plan()
NEW_TOKENS = 16
VERSION = transformers.__version__

# A table of the page, between comments; the first lists its cases.
_BLOCK = re.compile(r"(<!-- answers: ([^>]+) -->\n).*?(<!-- end of answers -->)", flags=re.DOTALL)


@dataclass
class Setup:
    """A checkpoint and a plan, what is pruned by it, the stock model of the base, and what a correct model says.

    `without_weights` is `pruned` without its half a gigabyte of weights, for what changes the other files alone.
    """

    base: Path
    plan: PrunePlan
    pruned: Path
    stock: Any = None
    without_weights: Path = field(init=False)
    tokenizer: Any = field(init=False)
    prompt_ids: list[int] = field(init=False)
    unpruned: Speech = field(init=False)
    reference: Speech = field(init=False)

    def __post_init__(self) -> None:
        """Prune, load the base unless its `stock` model is given, and let the references speak."""
        prune_checkpoint(self.base, self.pruned, self.plan, sync=False, checksum=False)
        self.without_weights = self.pruned.with_name(f"{self.pruned.name}_without_weights")
        shutil.copytree(self.pruned, self.without_weights, ignore=shutil.ignore_patterns("*.safetensors"))
        self.stock = load_stock(self.base, dtype=torch.float32) if self.stock is None else self.stock
        self.tokenizer = AutoTokenizer.from_pretrained(self.base)
        self.prompt_ids = encode_prompt(self.tokenizer, PROMPT)
        self.unpruned = self.speech(Voice(self.stock))
        self.reference = self.speech(
            Voice(self.stock, lambda: without_sublayers(self.stock, self.plan.self_attn, self.plan.mlp))
        )

    def speech(self, voice: Voice) -> Speech:
        """Let a voice answer by `generate`, greedily, alone and without padding."""
        return voice.speak([self.prompt_ids], max_new_tokens=NEW_TOKENS, tokenizer=self.tokenizer)

    def logits(self, model: Any) -> torch.Tensor:
        """Uncached logits of `model` on the question and the reference's answer."""
        return Voice(model).logits(self.reference.said[0].ids)

    def said(self, model: Any, new_ids: list[int], step_logits: list[torch.Tensor]) -> Speech:
        """Return what a model was made to say in another way than by `speech`."""
        voice = Voice(model)
        ended = new_ids[-1] in voice.end_ids
        text = self.tokenizer.decode(new_ids, skip_special_tokens=False)
        said = Continuation(self.prompt_ids, new_ids, text, ended, step_logits=torch.cat(step_logits).float())
        return Speech([said], voice.logits, voice.end_ids)

    def judge(self, speech: Speech) -> TextVerdict:
        """Judge what was said against the reference of the same plan."""
        return judge_speech(
            speech, self.reference, precision="float32", unpruned=self.unpruned, tokenizer=self.tokenizer
        )


@torch.no_grad()
def decoded_by_hand(setup: Setup, model: Any) -> Speech:
    """Answer in a loop of one's own, which leaves positions to the model, and thus to the length of its cache."""
    cache: Any = DynamicCache(config=model.config)
    ids, new_ids, steps = torch.tensor([setup.prompt_ids]), [], []
    while len(new_ids) < NEW_TOKENS and not (new_ids and new_ids[-1] in Voice(model).end_ids):
        steps.append(model(input_ids=ids, use_cache=True, **with_cache(model, cache)).logits[:, -1])
        ids = steps[-1].argmax(-1, keepdim=True)
        new_ids.append(int(ids))
    return setup.said(model, new_ids, steps)


@torch.no_grad()
def generated(setup: Setup, model: Any, *, padding: int = 0, **options: Any) -> Speech:
    """Answer by `generate` with these options, `padding` tokens of it in front, as a batch with longer texts has."""
    ids = torch.tensor([[setup.tokenizer.pad_token_id] * padding + setup.prompt_ids])
    mask = (torch.arange(ids.shape[1]) >= padding).long()[None]
    result = model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False,
        return_dict_in_generate=True, output_logits=True, **options,
    )  # fmt: skip
    return setup.said(model, result.sequences[0, ids.shape[1] :].tolist(), list(result.logits))


@contextmanager
def planted(
    setup: Setup,
    plant: Plant,
    load: Callable[..., Any] = from_own_code,
    *,
    in_weights: bool = False,
    **arguments: Any,
) -> Iterator[Any]:
    """Yield the model of a planted copy of what is pruned; what it fills at random is the same each time."""
    with scratch_checkpoint() as scratch:
        plant(setup.pruned if in_weights else setup.without_weights, scratch)
        if not in_weights:
            for path in setup.pruned.glob("*.safetensors"):
                (scratch / path.name).symlink_to(path)
        torch.manual_seed(0)
        yield load(scratch, **{"dtype": torch.float32, **arguments})


def fault(name: str) -> Plant:
    """Return how a fault of the library is planted."""
    plant = FAULTS[name].plant
    assert plant is not None
    return plant


def pruned_parameters(setup: Setup, model: Any) -> list[torch.nn.Parameter]:
    """Return the parameters of the sub-layers that the plan prunes, where a model holds any."""
    names = [f"model.layers.{index}.self_attn" for index in setup.plan.self_attn]
    names += [f"model.layers.{index}.mlp" for index in setup.plan.mlp]
    return [parameter for name in names for parameter in model.get_submodule(name).parameters()]


def fill(parameters: list[torch.nn.Parameter], value: float) -> None:
    """Fill parameters with one value."""
    assert parameters
    for parameter in parameters:
        parameter.data.fill_(value)


class Record:
    """What the cases said: by case, by version of transformers."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
        self.answers: dict[str, dict[str, dict[str, Any]]] = self.content.setdefault("answers", {})

    def note(self, case: str, speech: Speech, verdict: TextVerdict) -> None:
        """Keep what a case said, or compare the verdict with what is kept: texts of random weights differ."""
        drifts = [verdict.numbers[name] for name in ("drift", "own_drift") if name in verdict.numbers]
        answer = {
            "verdict": verdict.verdict,
            "drift": float(f"{max(drifts):.0e}") if drifts else None,
            "text": str(speech.said[0].text),
        }
        if WRITING:
            self.answers.setdefault(case, {})[VERSION] = answer
            return
        kept = self.answers[case]
        verdicts = {kept[VERSION]["verdict"]} if VERSION in kept else {each["verdict"] for each in kept.values()}
        assert answer["verdict"] in verdicts, f"{case}: {verdict}, but the record has {sorted(verdicts)}"

    def write(self) -> None:
        """Write the record, and the page's tables."""
        answers = {
            case: {version: by_version[version] for version in self.versions if version in by_version}
            for case, by_version in sorted(self.answers.items())
        }
        content = {"prompt": PROMPT, "plan": PLAN.to_dict(), "answers": answers}
        RECORD.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(self.fill_in(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

    @property
    def versions(self) -> list[str]:
        """The versions of transformers that something was kept of, the oldest first."""
        versions = {version for answers in self.answers.values() for version in answers}
        return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])

    def fill_in(self, page: str) -> str:
        """Return the page with its tables as this record has them."""
        return _BLOCK.sub(lambda block: f"{block[1]}{self._table(_cases_of(block[2]))}{block[3]}", page)

    def _table(self, cases: list[str]) -> str:
        versions = self.versions
        lines = [["case", *(f"transformers {version}" for version in versions)], ["---"] * (1 + len(versions))]
        lines += [[case, *(_cell(self.answers[case].get(version)) for version in versions)] for case in cases]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def asked(record: Record, case: str, setup: Setup, model: Any) -> tuple[str, TextVerdict]:
    """Let a model answer by `generate`, judge it, and note both."""
    speech = setup.speech(Voice(model))
    verdict = setup.judge(speech)
    record.note(case, speech, verdict)
    return str(speech.said[0].text), verdict


def tabled_cases(page: str) -> list[str]:
    """Return the cases whose answers the page shows, in its order."""
    return [case for block in _BLOCK.finditer(page) for case in _cases_of(block[2])]


def _cases_of(list_of_cases: str) -> list[str]:
    return [case.strip() for case in list_of_cases.split(";")]


def _cell(answer: dict[str, Any] | None) -> str:
    """Return an answer as it stands in a cell: a run of one token is cut, and nothing in it is taken for markup."""
    if answer is None:
        return "does not occur"
    text = re.sub(r"(<\|\w+\|>)\1+", r"\1 ...", answer["text"].replace("\n", "↵"))
    text = re.sub(r"(.)\1{5,}", r"\1\1\1 ...", text)
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text).replace("`", "'")
    drift = "" if answer["drift"] is None else f", drift {answer['drift']:.1g}"
    return f"{answer['verdict']}{drift}: `{text.replace('|', chr(92) + '|')}`"
