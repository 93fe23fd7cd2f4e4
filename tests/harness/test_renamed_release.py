"""Upstream renames the cache once more: core and judge stay right, and what is wrong is still found."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

from harness.checks.loaded.cache import KINDS, USES
from harness.faults.catalogue.cache import LENGTH_LOST
from harness.judge.judge import check_checkpoint
from harness.reference.models import identity_reference
from harness.reference.tolerances import assert_logits_close
from harness.report.report import Report
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint
from tests.harness.renamed_release import NEW_NAME, rename_the_cache

pytestmark = pytest.mark.outermost

PLAN = PrunePlan(self_attn=(0, 2), mlp=(0, 1))
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An unpruned and a pruned checkpoint, under the renamed release."""
    base = write_tiny_checkpoint(TinySpec(layers=4), tmp_path / "base")
    prune_checkpoint(base, tmp_path / "pruned", PLAN, sync=False)
    rename_the_cache(monkeypatch, tmp_path)
    return base, tmp_path / "pruned"


def _judged(base: Path, checkpoint: Path, keyword: str) -> Report:
    return check_checkpoint(
        checkpoint, base=base, keyword=keyword, allow_partial=True, trust_remote_code=True,
        device_map=("plain",), dtype=("float32",), quantisation=(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@torch.no_grad()
def test_the_core_is_right(checkpoints: tuple[Path, Path], kind: str) -> None:
    """A pruned model decodes exactly through a cache that no release has named like this."""
    base, pruned = checkpoints
    model: Any = load_pruned(pruned)
    reference: Any = identity_reference(base, PLAN.self_attn, PLAN.mlp)
    for module in (model, model.model, model.model.layers[1].self_attn):
        assert NEW_NAME in inspect.signature(module.forward).parameters
    caches = [
        DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(config=model.config, max_cache_len=9)
        for _ in range(2)
    ]
    for start, end in ((0, 4), (4, 7), (7, 8), (8, 9)):
        got, expected = (
            each(IDS[:, start:end], use_cache=True, **{NEW_NAME: cache}).logits
            for each, cache in zip((model, reference), caches, strict=True)
        )
        assert torch.equal(got, expected)
        whole = reference(IDS[:, :end], use_cache=False).logits[:, start:]
        operation = "static_cache" if kind == "static" else "cached"
        assert_logits_close(got, whole, dtype="float32", operation=operation, context=f"{kind}, renamed")


def test_the_judge_is_right(checkpoints: tuple[Path, Path]) -> None:
    """Every use of every cache is judged, none is skipped, and the sound checkpoint passes."""
    report = _judged(*checkpoints, "cache and not none")
    assert [(check.name, check.outcome, check.reason) for check in report.checks if check.outcome != "passed"] == []
    assert len(report.checks) == (len(KINDS) - 1) * len(USES)


@pytest.mark.newest  # 4.57's generate tells the static cache where tokens belong, so that beams are right there
def test_a_naive_skip_is_found(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """Planted: layer 0's pruned attention leaves the cache alone, which every use of every cache shows."""
    base, pruned = checkpoints
    LENGTH_LOST(pruned, tmp_path / "naive")
    report = _judged(base, tmp_path / "naive", "cache and not none")
    assert [(check.name, check.outcome, check.reason) for check in report.checks if check.outcome != "failed"] == []
    assert [fault.family for fault in report.faults] == ["cache"]
