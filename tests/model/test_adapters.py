"""LoRA (peft) on a pruned model: passes pruned modules by, trains and saves the rest, and merges."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from harness.reference.models import reference_logits
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints
from tests.model.hollow import assert_hollow

SPEC = TinySpec(layers=3)
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1, 2))
IDS = torch.arange(5, 17).reshape(2, 6)

# peft 0.21.2 reads an attribute that transformers 5.23 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

by_target = pytest.mark.parametrize("target", ["all-linear", ["q_proj", "up_proj"]], ids=["all-linear", "by name"])


def _trained(pruned: Path, **options: Any) -> Any:
    """Return a model with adapters that two steps have trained, in evaluation mode."""
    model = get_peft_model(load_pruned(pruned), LoraConfig(lora_dropout=0.0, **options)).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves only B, which starts as zeros
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    return model.eval()


@by_target
def test_pruned_modules_are_passed_by(checkpoints: Checkpoints, target: str | list[str]) -> None:
    """Nothing is to be left out by hand: each adapter is on a kept module, and a step of training moves it."""
    model = _trained(checkpoints(SPEC, PLAN)[1], target_modules=target)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    assert not [name for name in trained if "layers.2." in name or "layers.0.self_attn" in name]
    assert_hollow(model.get_base_model())


@pytest.mark.filterwarnings("ignore:You have passed exclude_modules=:UserWarning")  # peft found nothing to exclude
def test_leaving_them_out_by_name_changes_nothing(checkpoints: Checkpoints) -> None:
    """With `exclude_modules` and the pruned modules' names, which 0.1.0 asked for, the same modules are adapted."""
    pruned = checkpoints(SPEC, PLAN)[1]
    names = load_pruned(pruned).pruned_linear_names()
    excluded, passed_by = (
        get_peft_model(load_pruned(pruned), LoraConfig(target_modules="all-linear", **options)).state_dict().keys()
        for options in ({"exclude_modules": names}, {})
    )
    assert excluded == passed_by


@by_target
def test_saved_and_loaded_again(checkpoints: Checkpoints, tmp_path: Path, target: str | list[str]) -> None:
    """Trained adapters survive saving and loading, and change what the model computes."""
    pruned = checkpoints(SPEC, PLAN)[1]
    model = _trained(pruned, target_modules=target)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load_pruned(pruned), tmp_path / "adapter").eval()
    assert torch.equal(reference_logits(again, IDS), reference_logits(model, IDS))
    assert not torch.equal(reference_logits(model, IDS), reference_logits(load_pruned(pruned), IDS))


def test_merged_into_the_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """`merge_and_unload` gives back our model, hollow, which computes the same and can be saved and loaded."""
    model = _trained(checkpoints(SPEC, PLAN)[1], target_modules="all-linear")
    expected = reference_logits(model, IDS)
    merged = model.merge_and_unload()
    assert_hollow(merged)
    torch.testing.assert_close(reference_logits(merged, IDS), expected)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(reference_logits(load_pruned(tmp_path / "merged"), IDS), reference_logits(merged, IDS))
