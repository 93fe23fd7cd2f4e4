"""Checkpoints that 0.1.0 wrote: `load_pruned` uses the installed code, and refreshed they load by their own code."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from harness.models.forward import NEW_CACHE, cached_logits, unpadded
from harness.models.session import fresh_auto_classes
from harness.reference.models import identity_reference
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned, refresh_checkpoint
from tests.model.conftest import Checkpoints
from tests.unit.carrying import carry_old_code

SPEC = TinySpec(layers=4, layer_types="mixed", tied=False)
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1, 2))
IDS = torch.arange(5, 29).reshape(2, 12)
PIECES = (5, 1, 1, 3, 1, 1)


def old_checkpoint(checkpoints: Checkpoints, folder: Path) -> tuple[Path, Path]:
    """Return the base, and the checkpoint that 0.1.0 would have made of it, in the folder."""
    base, pruned = checkpoints(SPEC, PLAN)
    return base, carry_old_code(shutil.copytree(pruned, folder / "old"))


def decodes_exactly(model: Any, base: Path, kind: str) -> bool:
    """Whether logits through a cache, in pieces, are those of the reference without a cache, to a few roundings."""
    reference = identity_reference(base, PLAN.self_attn, PLAN.mlp)
    with torch.no_grad():
        expected = reference(IDS, use_cache=False).logits
    got, _ = cached_logits(model, unpadded(IDS), NEW_CACHE[kind](model, IDS.shape[1]), PIECES)
    return bool((got - expected).abs().max() < 1e-5 * expected.abs().max())


@pytest.mark.parametrize("kind", NEW_CACHE)
def test_load_pruned(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """By `load_pruned` a checkpoint whose manifest names 0.1.0's code decodes exactly, on every release."""
    base, old = old_checkpoint(checkpoints, tmp_path)
    assert decodes_exactly(load_pruned(old), base, kind)


@pytest.mark.parametrize("kind", NEW_CACHE)
def test_refreshed(kind: str, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Refreshed, it decodes exactly by its own code, and has the class without a head, too."""
    base, old = old_checkpoint(checkpoints, tmp_path)
    refresh_checkpoint(old, sync=False)
    with fresh_auto_classes():
        model = AutoModelForCausalLM.from_pretrained(old, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules.")
        assert type(AutoModel.from_pretrained(old, trust_remote_code=True)).__name__ == "PrunedQwen3Model"
    assert decodes_exactly(model, base, kind)
