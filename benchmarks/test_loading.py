"""Loading: each in a fresh process, beside a stock Qwen3 with as many bytes.

Shown beside: the unpruned model, and one whose class skips by flags alone, so that the skipped modules stay and are
filled with random weights.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import interleaved
from benchmarks.record import Amount, Figures, Ratio
from harness.bench.load_process import FreshLoads, Load
from harness.faults.code_edits import edit_foreign
from harness.faults.code_faults import RESIDENT
from harness.loading_modes import LoadingMode
from harness.resident import resident_weight_bytes_by_device
from harness.subject import Subject, read_subject
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint

ROUNDS = 2  # of each that are asked for
MB = 1_000_000
LAYERS = 16
# As many attentions as mlps, so that a stock model with as many bytes is one with fewer layers.
PLAN = PrunePlan(self_attn=(0, 2, 4, 6), mlp=(9, 11, 13, 15))
MODE = LoadingMode("plain", "bfloat16")


def _spec(layers: int) -> TinySpec:
    """Return layers as wide as those of Qwen3-0.6B."""
    return TinySpec(
        layers=layers, hidden_size=1024, intermediate_size=3072, heads=16, key_value_heads=8, head_dim=128,
        vocabulary_size=8192, dtype="bfloat16", shards=3,
    )  # fmt: skip


class Checkpoints(NamedTuple):
    """What is loaded: pruned, and with it the unpruned one; a stock one with as many bytes; skipped by flags alone."""

    pruned: Subject
    as_large: Subject
    flags_only: Subject
    kept_bytes: int


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Checkpoints:
    """Write all checkpoints."""
    folder: Path = tmp_path_factory.mktemp("loading")
    base, pruned, flags = (folder / name for name in ("base", "pruned", "flags_only"))
    write_tiny_checkpoint(_spec(LAYERS), base)
    as_large = write_tiny_checkpoint(_spec(LAYERS - len(PLAN.mlp)), folder / "as_large")
    kept_bytes = prune_checkpoint(base, pruned, PLAN, sync=False).bytes_after
    edit_foreign(RESIDENT)(pruned, flags)
    figures.subject = (
        f"A bfloat16 Qwen3 of {LAYERS} layers as wide as those of Qwen3-0.6B, {len(PLAN.self_attn)} attentions and "
        f"{len(PLAN.mlp)} mlps pruned, {kept_bytes / MB:.0f} MB kept; loaded in bfloat16."
    )
    return Checkpoints(
        read_subject(pruned, base),
        read_subject(as_large, as_large),
        read_subject(flags, base, PLAN, trust_remote_code=True),
        kept_bytes,
    )


@pytest.fixture(scope="module")
def loads() -> Iterator[FreshLoads]:
    """Yield what loads in fresh processes."""
    fresh = FreshLoads()
    yield fresh
    fresh.close()


@pytest.mark.parametrize("what", ["pruned", "unpruned", "skipped by flags alone"])
def test_load(
    benchmark: BenchmarkFixture, loads: FreshLoads, checkpoints: Checkpoints, figures: Figures, rounds: int, what: str
) -> None:
    """A load, bare and up to the end of the first forward pass, beside that of a stock model with as many bytes."""
    subject = checkpoints.flags_only if what == "skipped by flags alone" else checkpoints.pruned
    ours: list[Load] = []
    theirs: list[Load] = []
    interleaved(
        benchmark,
        lambda: ours.append(loads.load(subject, MODE, "base" if what == "unpruned" else "pruned")),
        {"as large": lambda: theirs.append(loads.load(checkpoints.as_large, MODE, "base"))},
        prepare=lambda: None,
        rounds=ROUNDS * rounds,
    )
    goal = "1.05 at most" if what == "pruned" else ""
    for until, seconds in (("load", "bare_seconds"), ("load and first pass", "forward_seconds")):
        times, baseline = ([getattr(each, seconds) for each in loaded] for loaded in (ours, theirs))
        figures.add(Ratio.of(f"{what}, {until}", "stock, with as many bytes", times, baseline, goal))
    kept = checkpoints.kept_bytes
    goal = f"{1.15 * kept / MB:.0f} MB at most: what is kept, and 15 %" if what == "pruned" else ""
    for kind in ("anonymous", "file_backed"):
        peaks = [getattr(each.forward, kind) / MB for each in ours]
        words = f"{what}, peak {kind.replace('_', '-')} memory"
        figures.add(Amount.of(words, peaks, "MB", goal if kind == "anonymous" else ""))


def test_bytes_held(checkpoints: Checkpoints, figures: Figures) -> None:
    """What a load holds are the kept bytes in the dtype that was asked for, two buffers, and no byte more."""
    rotary = 2 * checkpoints.pruned.config["head_dim"] // 2 * torch.float32.itemsize  # frequencies, stored nowhere
    for dtype, size in ((torch.bfloat16, 1), (torch.float32, 2)):
        held = sum(resident_weight_bytes_by_device(load_pruned(checkpoints.pruned.root, dtype=dtype)).values())
        assert held == size * checkpoints.kept_bytes + rotary
        figures.add(Amount.of(f"tensor bytes held in {str(dtype)[6:]}", [held / MB], "MB", "as predicted, to the byte"))
