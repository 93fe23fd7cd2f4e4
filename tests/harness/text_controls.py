"""The controls of the judge of text, on the real checkpoint: what must be sound, garbled, or the plan's own doing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer

from harness.reference.models import load_stock, without_sublayers
from harness.system.libraries import quiet_libraries
from harness.text.generation import Speech, Voice
from harness.text.judge import judge_speech
from pruning import PrunePlan, load_pruned
from tests.harness.text_faults import (
    PRECISIONS,
    cache_ignored,
    edited_tokenizer,
    one_weight_is_nan,
    positions_shifted,
    shift_vocabulary,
    stock_class,
)
from tests.harness.twins import underflowing

REAL_PLAN: Final = PrunePlan(self_attn=[5, 17, 20, 25, 29], mlp=[16, 17])  # the demo's
SOUND_PLANS: Final = {
    "nothing pruned": PrunePlan(),
    "4 least harmful": PrunePlan(self_attn=[3, 5, 17], mlp=[7]),
    "8 least harmful": PrunePlan(self_attn=[3, 5, 7, 8, 11, 17, 28], mlp=[7]),
}
RUINOUS_PLANS: Final = {
    "mlp 0": PrunePlan(mlp=[0]),
    "14 least harmful": PrunePlan(self_attn=[3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 17, 28], mlp=[7, 16]),
}
_RECORDED: Final = (
    "drift", "cached_drift", "own_drift", "reference_own_drift", "excess", "run_on", "stops_short", "not_finite",
    "plan_cost", "precision_cost", "repetition", "entropy", "invalid_characters",
)  # fmt: skip


class Controls:
    """Judges voices against one equally loaded reference; `records` is what it measured, `wrong` what it got wrong."""

    def __init__(self, base: Path, precision: str, prompts: list[str], new_tokens: int) -> None:
        self.base_directory, self.precision, self.prompts, self.new_tokens = base, precision, prompts, new_tokens
        self.base: Any = load_stock(base, **PRECISIONS[precision])
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.unpruned = self.speak(Voice(self.base))
        self.records: list[dict[str, Any]] = []
        self._expected: dict[tuple[float, tuple[str, ...]], Speech] = {}

    @property
    def wrong(self) -> list[str]:
        """The controls whose verdict is not what it should be."""
        return [str(record) for record in self.records if record["verdict"] != record["wanted"]]

    def speak(self, voice: Voice, temperature: float = 0.0, tokenizer: Any = None) -> Speech:
        """Let the voice answer the prompts."""
        return voice.speak(
            self.prompts,
            max_new_tokens=self.new_tokens,
            temperature=temperature,
            tokenizer=tokenizer or self.tokenizer,
        )

    def pruned_base(self, plan: PrunePlan) -> Voice:
        """The unpruned model without what `plan` prunes."""
        return Voice(self.base, lambda: without_sublayers(self.base, plan.self_attn, plan.mlp))

    def check(self, name: str, wanted: str, said: Speech, expected: Speech, **options: Any) -> None:
        """Judge `said` and record what came of it."""
        verdict = judge_speech(said, expected, precision=self.precision, tokenizer=self.tokenizer, **options)
        numbers = {key: float(f"{verdict.numbers[key]:.3g}") for key in _RECORDED if key in verdict.numbers}
        self.records.append(
            {
                "precision": self.precision, "control": name, "wanted": wanted, "verdict": verdict.verdict,
                "numbers": numbers, "limits": {key: float(f"{limit:.3g}") for key, limit in verdict.limits.items()},
            }
        )  # fmt: skip
        print(self.precision, name, verdict.verdict, numbers)

    def candidate(self, name: str, wanted: str, voice: Voice, temperature: float = 0.0, tokenizer: Any = None) -> None:
        """Check a candidate of REAL_PLAN."""
        key = temperature, tuple(self.prompts)
        if key not in self._expected:
            self._expected[key] = self.speak(self.pruned_base(REAL_PLAN), temperature)
        unpruned = self.unpruned if wanted == "sound" else None  # a fault is seen without it
        said = self.speak(voice, temperature, tokenizer)
        self.check(name, wanted, said, self._expected[key], unpruned=unpruned)

    def plan(self, name: str, wanted: str, plan: PrunePlan) -> None:
        """Check a correct model of another plan."""
        said = self.speak(self.pruned_base(plan))
        self.check(name, wanted, said, said, unpruned=self.unpruned)


def faults_in_memory(model: Any) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """Return by name what can go wrong in a model that is loaded."""
    half = list(range(len(model.model.layers) // 2, len(model.model.layers)))
    return {
        "cache ignored in one layer": lambda: cache_ignored(model, [27]),
        "cache ignored in half of the layers": lambda: cache_ignored(model, half),
        "positions off by one": lambda: positions_shifted(model, 1),
        "positions off by eight": lambda: positions_shifted(model, 8),
        "one weight is NaN": lambda: one_weight_is_nan(model),
    }


def other_plans() -> Iterator[tuple[str, PrunePlan]]:
    """Yield plans that a model meant for REAL_PLAN may be given by mistake."""
    yield "one MLP more", REAL_PLAN | PrunePlan(mlp=[7])
    yield "one attention fewer", REAL_PLAN - PrunePlan(self_attn=[20])
    shifted = {name: [layer - 1 for layer in getattr(REAL_PLAN, name)] for name in ("self_attn", "mlp")}
    yield "plan shifted by one", PrunePlan(**shifted)
    yield "attention and mlp swapped", PrunePlan(self_attn=REAL_PLAN.mlp, mlp=REAL_PLAN.self_attn)
    yield "nothing pruned", PrunePlan()


def wrong_tokenizers(base: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield tokenizers that are not the checkpoint's."""
    yield "vocabulary shifted", edited_tokenizer(base, folder / "shifted", shift_vocabulary)
    yield "decoder lost", edited_tokenizer(base, folder / "decoder", lambda content: content.pop("decoder"))


def underflow(base: Path, folder: Path, prompts: list[str], new_tokens: int) -> Controls:
    """Return what is judged of a checkpoint whose 8-bit load underflows, and whose float32 load does not."""
    directory = underflowing(base, folder / "underflowing")
    controls = Controls(directory, "8bit", prompts, new_tokens)
    full: Any = load_stock(directory, dtype=torch.float32)
    said = controls.speak(controls.pruned_base(REAL_PLAN))
    exact = controls.speak(Voice(full, lambda: without_sublayers(full, REAL_PLAN.self_attn, REAL_PLAN.mlp)))
    controls.check("8-bit underflows", "garbled", said, said, unpruned=controls.unpruned, full_precision=exact)
    return controls


def every_control(base: Path, pruned: Path, folder: Path, precision: str, prompts: dict[str, list[str]]) -> Controls:
    """Judge every control in one precision."""
    quantised = precision in ("8bit", "4bit")  # slow on a CPU
    some = [texts[0] for texts in prompts.values()][:: 3 if quantised else 1]
    with quiet_libraries():
        controls = Controls(base, precision, some, 10)
        model: Any = load_pruned(pruned, **PRECISIONS[precision])
        for temperature in (0.0, 0.7, 1.5):
            controls.candidate(f"temperature {temperature:g}", "sound", Voice(model), temperature)
        for name, plan in SOUND_PLANS.items():
            controls.plan(name, "sound", plan)
        for name, plan in RUINOUS_PLANS.items():
            controls.plan(name, "plan ruins the model", plan)
        for name, fault in faults_in_memory(model).items():
            controls.candidate(name, "garbled", Voice(model, fault))
        for name, plan in other_plans():
            controls.candidate(name, "garbled", controls.pruned_base(plan))
        for name, tokenizer in wrong_tokenizers(base, folder):
            controls.candidate(name, "garbled", Voice(model), tokenizer=tokenizer)
        if precision == "float32":
            controls.candidate("random modules", "garbled", Voice(stock_class(pruned, folder / "stock")))
        for kind, texts in () if quantised else prompts.items():  # what asks for odd or repeated text, by itself
            controls.prompts = texts
            controls.unpruned = controls.speak(Voice(controls.base))
            controls.candidate(f"prompts of {kind}", "sound", Voice(model))
    return controls


def ratio(record: dict[str, Any], name: str) -> float:
    """Return how much of its limit a number is; infinite for one that may not be there at all."""
    value, limit = record["numbers"].get(name), record["limits"].get(name)
    if value is None or limit is None:
        return 0.0
    return value / limit if limit else (math.inf if value > 0 else 0.0)


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Put the records into the JSON file that the documentation's plot is made of, in the place of those before."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = {(record["precision"], record["control"]) for record in records}
    kept = [record for record in before if (record["precision"], record["control"]) not in new]
    lines = ",\n".join(json.dumps(record) for record in [*kept, *records])
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
