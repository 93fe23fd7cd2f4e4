"""The main job on the bundled default: prune a real model, load it in several ways, prove each, let it talk.

Each way of loading answers a prompt, and so does an equally loaded reference: their logits are compared step by step,
both with a KV cache. Then the whole conversation goes through both at once, without a cache, and is compared again.
"""

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from harness.models.modes import LoadingMode
from harness.models.resident import resident_weight_bytes
from harness.real_checkpoint.cache import real_checkpoint_path
from harness.reference.models import identity_reference, load_stock, reference_logits, zero_weight_reference
from harness.reference.stored_bytes import differing_tensor
from harness.reference.tolerances import tolerance
from harness.report.outcomes import Verdict
from harness.system.crashes import last_line, whole_traceback
from harness.system.libraries import quiet_libraries
from harness.system.scratch import scratch_folder
from harness.system.signals import ended_by
from pruning import CheckpointError, PrunePlan, prune_checkpoint
from pruning.load import load_pruned

MAX_NEW_TOKENS = 16
# One of each kind: `prunecheck check` goes through the whole table.
LOADING_MODES = tuple(
    LoadingMode(place, precision)
    for place, precision in (
        ("plain", "float32"), ("plain", "bfloat16"), ("auto", "float32"), ("disk-beside", "float32"),
        ("plain", "8bit"), ("plain", "4bit"),
    )
)  # fmt: skip


@dataclass(frozen=True)
class DemoRow:
    """One way of loading: `seconds` to load, weights resident in `bytes`, and how far the logits are from what.

    `difference` is the largest absolute logit difference to the equally loaded reference, `allowed` the largest
    that the table of tolerances allows. `reason` says why the row is faulty, crashed or was not run, else it is None;
    of a crash it is the last line of the `traceback`.
    """

    mode: str
    outcome: str  # "sound", "faulty", "error" or "skipped"
    reason: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    difference: float | None = None
    allowed: float | None = None
    answer: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class DemoReport:
    """What the demo found; bytes are those of stored tensors. `base_answer` is what the unpruned model answered."""

    base: str
    plan: dict[str, list[int]]
    bytes_before: int
    bytes_after: int
    prompt: str
    rows: tuple[DemoRow, ...]
    base_answer: str | None = None

    @property
    def verdict(self) -> Verdict:
        """`"faulty"` if any row is, `"undecided"` if one crashed, else `"sound"`."""
        outcomes = {row.outcome for row in self.rows}
        return "faulty" if "faulty" in outcomes else "undecided" if "error" in outcomes else "sound"

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        return {"schema": 2, "verdict": self.verdict, **asdict(self)}


def bundled_plan() -> PrunePlan:
    """Return the plan that the demo prunes by: attentions, MLPs and one whole layer."""
    return PrunePlan.from_dict(json.loads(_data("demo_plan.json")))


def bundled_prompts() -> list[str]:
    """Return short questions to ask a chat model."""
    prompts: list[str] = json.loads(_data("prompts.json"))
    return prompts


def _data(name: str) -> str:
    return resources.files("harness").joinpath("data", name).read_text(encoding="utf-8")


def run_demo(plan: PrunePlan, step: Callable[[str], None]) -> DemoReport:
    """Prune the real checkpoint by `plan` and judge the result in every way of loading.

    `step` is called with a line for each thing that takes time. Raises CannotRun if there is no checkpoint,
    PruningError if it cannot be pruned by `plan`.
    """
    step("fetching the real checkpoint")
    base = real_checkpoint_path(progress=step)
    prompt = bundled_prompts()[0]
    with scratch_folder() as scratch, quiet_libraries():
        pruned = scratch / "pruned"
        step("pruning")
        result = prune_checkpoint(base, pruned, plan)
        step("comparing every stored byte")
        rows = [_stored_row(pruned, base, plan)]
        tokenizer = AutoTokenizer.from_pretrained(base)  # not of what is judged
        input_ids = _chat_tokens(tokenizer, prompt)
        step("asking the base")
        base_answer = _base_answer(base, tokenizer, input_ids)
        for mode in LOADING_MODES:
            step(f"loading and judging: {mode.name}")
            try:
                rows.append(_mode_row(mode, pruned, base, plan, tokenizer, input_ids))
            except Exception as error:  # a crash, which costs no other way of loading
                if ended_by(error) is not None:
                    raise
                crash = last_line(error), whole_traceback(error)
                rows.append(DemoRow(mode=mode.name, outcome="error", reason=crash[0], traceback=crash[1]))
    return DemoReport(
        base=str(base),
        plan=plan.to_dict(),
        bytes_before=result.bytes_before,
        bytes_after=result.bytes_after,
        prompt=prompt,
        rows=tuple(rows),
        base_answer=base_answer,
    )


def _stored_row(pruned: Path, base: Path, plan: PrunePlan) -> DemoRow:
    reason = differing_tensor(pruned, base, plan.self_attn, plan.mlp)
    return DemoRow(mode="on disk", outcome="faulty" if reason else "sound", reason=reason)


def _mode_row(
    mode: LoadingMode,
    pruned: Path,
    base: Path,
    plan: PrunePlan,
    tokenizer: PreTrainedTokenizerBase,
    input_ids: torch.Tensor,
) -> DemoRow:
    if mode.missing:
        return DemoRow(mode=mode.name, outcome="skipped", reason=mode.missing)
    with scratch_folder() as folder:
        started = time.perf_counter()
        try:
            model = load_pruned(pruned, **mode.arguments(_layers(base), plan, folder))
        except CheckpointError as error:
            return DemoRow(mode=mode.name, outcome="faulty", reason=str(error))
        seconds = time.perf_counter() - started
        resident = resident_weight_bytes(model)
        answer = _answer(model, input_ids)
        logits = reference_logits(model, answer.tokens)
        del model
        gc.collect()
        expected_answer, expected = _reference_logits(mode, base, plan, input_ids, answer.tokens, folder)
        differences = [(logits - expected).abs().max(), _cached_difference(answer, expected_answer)]
        if mode.name == "plain-float32":
            differences.append((logits - _zero_weight_logits(mode, base, plan, answer.tokens)).abs().max())
    difference = float(torch.stack(differences).max())  # NaN if any is
    allowed = tolerance(mode.precision, "reference").relative * float(expected.abs().max())
    reason = _reason(difference, allowed)
    return DemoRow(
        mode=mode.name,
        outcome="faulty" if reason else "sound",
        reason=reason,
        seconds=seconds,
        bytes=resident,
        difference=difference,
        allowed=allowed,
        answer=_text(tokenizer, answer, input_ids),
    )


def _reference_logits(
    mode: LoadingMode, base: Path, plan: PrunePlan, input_ids: torch.Tensor, tokens: torch.Tensor, folder: Path
) -> tuple["_Answer", torch.Tensor]:
    """Return the equally loaded reference's own answer, and its uncached logits of the conversation `tokens`."""
    arguments = mode.arguments(_layers(base), plan, folder / "reference")
    model = identity_reference(base, plan.self_attn, plan.mlp, **arguments)
    result = _answer(model, input_ids), reference_logits(model, tokens)
    del model
    gc.collect()
    return result


def _zero_weight_logits(mode: LoadingMode, base: Path, plan: PrunePlan, tokens: torch.Tensor) -> torch.Tensor:
    model = zero_weight_reference(base, plan.self_attn, plan.mlp, **mode.arguments(_layers(base), plan, base))
    logits = reference_logits(model, tokens)
    del model
    gc.collect()
    return logits


def _reason(difference: float, allowed: float) -> str | None:
    if difference <= allowed:  # false for NaN too
        return None
    return f"logits differ by {difference:.3g} from the equally loaded reference, but at most {allowed:.3g} is allowed"


class _Answer(NamedTuple):
    """A greedy answer: `tokens` (1, prompt and new tokens), and the cached `logits` (new tokens, vocabulary)."""

    tokens: torch.Tensor
    logits: torch.Tensor


def _cached_difference(answer: _Answer, expected: _Answer) -> torch.Tensor:
    """Return the largest logit difference of two answers, as long as they continue the same tokens."""
    steps = min(len(answer.logits), len(expected.logits))
    prompt = answer.tokens.shape[1] - len(answer.logits)
    same = answer.tokens[0, prompt : prompt + steps] == expected.tokens[0, prompt : prompt + steps]
    comparable = min(int(same.cumprod(0).sum()) + 1, steps)  # also the step that chose another token
    return (answer.logits[:comparable] - expected.logits[:comparable]).abs().max()


def _chat_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> torch.Tensor:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    input_ids: torch.Tensor = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    return input_ids


def _answer(model: Any, input_ids: torch.Tensor) -> _Answer:
    input_ids = input_ids.to(model.device) if model.device.type != "meta" else input_ids
    with torch.no_grad():
        generated = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return _Answer(generated.sequences.cpu(), torch.cat(generated.logits).float().cpu())


def _base_answer(base: Path, tokenizer: PreTrainedTokenizerBase, input_ids: torch.Tensor) -> str:
    answer = _text(tokenizer, _answer(load_stock(base), input_ids), input_ids)
    gc.collect()
    return answer


def _text(tokenizer: PreTrainedTokenizerBase, answer: _Answer, input_ids: torch.Tensor) -> str:
    return str(tokenizer.decode(answer.tokens[0, input_ids.shape[1] :], skip_special_tokens=True)).strip()


def _layers(base: Path) -> int:
    layers: int = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    return layers
