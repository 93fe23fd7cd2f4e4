"""The independent comparison of stored tensors, and the count of resident ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.models.resident import resident_weight_bytes
from harness.reference.stored_bytes import differing_tensor
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

PLAN = PrunePlan(self_attn=(1,), mlp=(10,))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny base of twelve layers and its pruned checkpoint, one file each."""
    base = write_tiny_checkpoint(TinySpec(layers=12), tmp_path / "base")
    prune_checkpoint(base, tmp_path / "pruned", PLAN)
    return tmp_path / "pruned", base


def difference(pair: tuple[Path, Path]) -> str | None:
    """Compare a pair by the plan."""
    return differing_tensor(*pair, PLAN.self_attn, PLAN.mlp)


def test_sound_pair(pair: tuple[Path, Path]) -> None:
    """A pruned checkpoint of ours differs in nothing."""
    assert difference(pair) is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("lost", "model.layers.11.mlp.up_proj.weight is missing"),
        ("kept", "model.layers.10.mlp.up_proj.weight is stored, but should not be"),
        ("one bit", "model.layers.0.mlp.up_proj.weight differs from the base's"),
        ("sign of zero", "model.layers.0.mlp.up_proj.weight differs from the base's"),
        ("dtype", "model.layers.0.mlp.up_proj.weight differs from the base's"),
    ],
)
def test_planted_faults(pair: tuple[Path, Path], fault: str, expected: str) -> None:
    """A lost tensor, one too many, a changed bit or dtype: each is named."""
    path, key = pair[0] / "model.safetensors", expected.split()[0]
    tensors = load_file(path)
    if fault == "lost":
        del tensors[key]
    elif fault == "kept":
        tensors[key] = tensors["model.layers.0.mlp.up_proj.weight"].clone()
    elif fault == "dtype":
        tensors[key] = tensors[key].to(torch.bfloat16)
    else:
        if fault == "sign of zero":
            base = load_file(pair[1] / "model.safetensors")
            base[key][0, 0] = 0.0
            save_file(base, pair[1] / "model.safetensors")
            tensors[key] = base[key].clone()
        tensors[key].view(torch.int32)[0, 0] ^= -(2**31) if fault == "sign of zero" else 1
    save_file(tensors, path)
    assert difference(pair) == expected


def test_resident_bytes_count_storages_once() -> None:
    """A tied weight counts once, a buffer counts, a view counts its storage, and the meta device holds nothing."""
    first, second = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
    second.weight = first.weight
    hollow = nn.Linear(8, 4, device="meta")
    model = nn.ModuleList([first, second, hollow])
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    assert resident_weight_bytes(model) == 8 * 4 * 4 + 3 * 8
