"""A pruned model whose parameters several processes share out among them trains as in one process."""

import os
import sys
from pathlib import Path

import pytest
import torch

from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints
from tests.model.sharded_training import SHARD, one_step, train

SPEC = TinySpec(layers=4, layer_types="mixed")
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.newest
@pytest.mark.parametrize("kind", SHARD)
@pytest.mark.parametrize(
    "plan",
    [PrunePlan(self_attn=[0, 2], mlp=[1, 2]), PrunePlan(self_attn=range(4), mlp=range(4))],
    ids=["some pruned", "everything pruned"],
)
def test_two_processes_share_the_parameters(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, plan: PrunePlan
) -> None:
    """A step by FSDP1 and FSDP2 leaves the parameters that a step in one process leaves.

    Planted: a layer pruned whole that returns the very tensor that it is given fails in FSDP1.
    """
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # `tests` may be on this process's path alone
    _, pruned = checkpoints(SPEC, plan)
    torch.multiprocessing.spawn(train, (str(pruned), IDS, str(tmp_path), kind), nprocs=2, join=True)
    alone = load_pruned(pruned).train()
    before = {name: parameter.detach().clone() for name, parameter in alone.named_parameters()}
    one_step(alone, IDS)  # the rows are of equal length, so the batch's loss is the mean of theirs
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    parameters = result["parameters"]
    assert parameters.keys() == before.keys()
    for name, expected in alone.named_parameters():
        torch.testing.assert_close(parameters[name], expected.detach(), atol=1e-5, rtol=1e-4)
        assert torch.equal(before[name], expected) is (not expected.requires_grad), name
    assert (result["error without a view"] != "none") is (kind == "FSDP1"), result["error without a view"]
