"""A pruned model leaves its process: as one graph of `torch.export`, and whole, in a file of `torch.save`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.reference.models import reference_logits
from harness.reference.tolerances import assert_logits_close
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints
from tests.model.hollow import assert_hollow

SPEC = TinySpec(layers=4, layer_types="mixed")
PLANS = {
    "some pruned": PrunePlan(self_attn=[0, 2], mlp=[1, 2]),
    "everything pruned": PrunePlan(self_attn=range(4), mlp=range(4)),
}
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))


class _Logits(nn.Module):
    """The logits of a model, uncached: a graph takes and returns tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


@pytest.mark.newest  # torch 2.13.0 cannot save the graph that 4.57.6 makes of its masks, the stock model's neither
@pytest.mark.parametrize("plan", PLANS)
def test_exported(checkpoints: Checkpoints, tmp_path: Path, plan: str) -> None:
    """A graph that is exported, saved and loaded computes what the model does, and holds the kept parameters alone."""
    model = load_pruned(checkpoints(SPEC, PLANS[plan])[1])
    with torch.no_grad():
        program = torch.export.export(_Logits(model), (IDS,))
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        got = loaded(IDS)
    kept = {f"model.{name}" for name in model.state_dict()}
    assert set(program.state_dict) <= kept
    assert_logits_close(got, reference_logits(model, IDS), dtype="float32", operation="compile", context="exported")


_ANOTHER_PROCESS = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False)
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2]), use_cache=False).logits, sys.argv[3])
"""


def test_saved_whole(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """`torch.save(model)` gives a file from which another process reads the same model."""
    model = load_pruned(checkpoints(SPEC, PLANS["some pruned"])[1])
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert_hollow(again)
    assert torch.equal(reference_logits(again, IDS), reference_logits(model, IDS))
    torch.save(IDS, tmp_path / "ids.pt")
    files = [str(tmp_path / name) for name in ("model.pt", "ids.pt", "logits.pt")]
    subprocess.run([sys.executable, "-c", _ANOTHER_PROCESS, *files], check=True, timeout=300)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), reference_logits(model, IDS))
