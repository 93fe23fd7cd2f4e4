"""The pruned real checkpoint gives the golden answers; other ways of loading are judged by the demo."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from harness.cli.demo import bundled_plan, bundled_prompts
from pruning import PrunePlan, audit_checkpoint, load_pruned, prune_checkpoint

pytestmark = pytest.mark.real_checkpoint

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "fixtures" / "golden_answers.json").read_text())


def test_golden_answers_are_of_the_bundled_plan_and_prompts() -> None:
    """The golden file was made with the plan and the prompts that the package has now."""
    assert PrunePlan.from_dict(GOLDEN["plan"]) == bundled_plan()
    assert [answer["prompt"] for answer in GOLDEN["answers"]] == bundled_prompts()


def test_golden_answers(real_checkpoint: Path, tmp_path: Path) -> None:
    """In float32, with its KV cache, the pruned model chooses the golden tokens as far as the choice is clear."""
    pruned = tmp_path / "pruned"
    prune_checkpoint(real_checkpoint, pruned, bundled_plan())
    audit_checkpoint(pruned)
    model = load_pruned(pruned, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(real_checkpoint)
    for answer in GOLDEN["answers"]:
        messages = [{"role": "user", "content": answer["prompt"]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=len(answer["token_ids"]))
        assert tokens[0, inputs.input_ids.shape[1] :].tolist() == answer["token_ids"], answer["prompt"]
