"""LoRA (peft) on a pruned model: passes pruned modules by, or is refused before any training."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints

SPEC = TinySpec(layers=3)
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1, 2))
IDS = torch.arange(5, 17).reshape(2, 6)

# peft 0.21.2 reads an attribute that transformers 5.23 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

by_target = pytest.mark.parametrize("target", ["all-linear", ["q_proj", "up_proj"]], ids=["all-linear", "by name"])


@by_target
def test_refused_before_training(checkpoints: Checkpoints, target: str | list[str]) -> None:
    """An adapter on a pruned module is refused when training is switched on, and by the first forward that learns."""
    model = get_peft_model(load_pruned(checkpoints(SPEC, PLAN)[1]), LoraConfig(target_modules=target))
    remedy = r"adapts a pruned module, which never runs: leave it out, with LoraConfig\(exclude_modules=.*\)$"
    with pytest.raises(RuntimeError, match=remedy):
        model.train()
    with pytest.raises(RuntimeError, match=remedy):
        model(IDS, labels=IDS)


@by_target
def test_excluded_modules(checkpoints: Checkpoints, tmp_path: Path, target: str | list[str]) -> None:
    """With the pruned modules excluded, a step trains every adapter, and they survive saving and loading."""
    pruned = checkpoints(SPEC, PLAN)[1]
    model = load_pruned(pruned)
    config = LoraConfig(target_modules=target, exclude_modules=model.pruned_linear_names(), lora_dropout=0.0)
    model = get_peft_model(model, config).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves only B, which starts as zeros
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    assert not [name for name in trained if "layers.2." in name or "layers.0.self_attn" in name]
    model.eval().save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load_pruned(pruned), tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)
        assert not torch.equal(model(IDS).logits, load_pruned(pruned)(IDS).logits)
