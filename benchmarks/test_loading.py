"""Loading: each in a fresh process, beside a stock Qwen3 with as many bytes, small and large.

All are read from the disk once before: how a file was written decides in how many pieces its pages lie in the system's
cache, and so how often a first forward pass has to ask for them. Pages just written would compare the writers.

Shown beside: the unpruned model, and one whose class skips by flags alone, so that the skipped modules stay and are
filled with random weights. A load by the checkpoint's own code is also held against its floor, the stock checkpoint
with the least code of its own.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.held_bytes import predicted_bytes
from benchmarks.least_code import LEAST_CODE, with_least_code
from benchmarks.loads import MB, STOCK, compare_loads
from benchmarks.record import Amount, Figures
from harness.bench.file_cache import drop
from harness.bench.fresh_process import FreshLoads, Which
from harness.faults.catalogue.code import RESIDENT
from harness.faults.planting.code_edits import edit_foreign
from harness.models.modes import LoadingMode, loading_modes
from harness.models.resident import resident_weight_bytes
from harness.subject.subject import Subject, read_subject
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, load_pruned, prune_checkpoint

ROUNDS = 6  # of each that are asked for: a load is short, and its time spreads
MODE = LoadingMode("plain", "bfloat16")
LAYERS = 28  # as Qwen3-0.6B and Qwen3-1.7B have
WAYS: dict[str, Which] = {
    "load_pruned": "load_pruned",
    "by the checkpoint's own code": "pruned",
    "unpruned": "base",
    "skipped by flags alone": "pruned",
}
OURS = ("load_pruned", "by the checkpoint's own code")


def _spec(size: str, layers: int) -> TinySpec:
    """Return layers as wide as those of Qwen3-0.6B, or of Qwen3-1.7B."""
    hidden = 1024 if size == "small" else 2048
    return TinySpec(
        layers=layers, hidden_size=hidden, intermediate_size=3 * hidden, heads=16, key_value_heads=8, head_dim=128,
        vocabulary_size=8192, dtype="bfloat16", shards=3,
    )  # fmt: skip


def _plan(layers: int) -> PrunePlan:
    """Return as many attentions as mlps, so that a stock model with as many bytes is one with fewer layers."""
    return PrunePlan(self_attn=tuple(range(0, layers // 2, 2)), mlp=tuple(range(layers // 2 + 1, layers, 2)))


class Checkpoints(NamedTuple):
    """What is loaded: pruned, and with it the unpruned one; a stock one with as many bytes; skipped by flags alone.

    `least_code` is the stock one with as many bytes, loaded by code of its own.
    """

    size: str
    pruned: Subject
    as_large: Subject
    least_code: Subject
    flags_only: Subject
    kept_bytes: int


@pytest.fixture(scope="module", params=("small", "large"))
def checkpoints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> Iterator[Checkpoints]:
    """Write all checkpoints, of one size and then of the other."""
    size: str = request.param
    layers = LAYERS if request.config.getoption("--size") >= 1 else 8  # the latter to see that all works
    plan = _plan(layers)
    folder: Path = tmp_path_factory.mktemp("loading")
    base, pruned, flags = (folder / name for name in ("base", "pruned", "flags_only"))
    write_tiny_checkpoint(_spec(size, layers), base)
    as_large = write_tiny_checkpoint(_spec(size, layers - len(plan.mlp)), folder / "as_large")
    kept_bytes = prune_checkpoint(base, pruned, plan, sync=False).bytes_after
    with_least_code(as_large, folder / "least_code")
    edit_foreign(RESIDENT)(pruned, flags)
    figures.subject += " " * bool(figures.subject) + (
        f"{size.capitalize()}: a bfloat16 Qwen3 of {layers} layers as wide as those of "
        f"Qwen3-{'0.6B' if size == 'small' else '1.7B'}, {len(plan.self_attn)} attentions and "
        f"{len(plan.mlp)} mlps pruned, {kept_bytes / MB:.0f} MB kept."
    )
    checkpoints = Checkpoints(
        size,
        read_subject(pruned, base),
        read_subject(as_large, as_large),
        read_subject(folder / "least_code", as_large, PrunePlan(), trust_remote_code=True),
        read_subject(flags, base, plan, trust_remote_code=True),
        kept_bytes,
    )
    files = {
        file
        for subject in (checkpoints.pruned, checkpoints.as_large, checkpoints.flags_only)
        for stored in (subject.stored, subject.base)
        if stored is not None
        for file in stored.files
    }
    if reason := drop(sorted(files)):  # as on a file system that is memory itself
        figures.subject += f" Its files lie in the cache as they were written: {reason}."
    yield checkpoints
    shutil.rmtree(folder)


@pytest.mark.parametrize("way", WAYS)
def test_load(
    benchmark: BenchmarkFixture, loads: FreshLoads, checkpoints: Checkpoints, figures: Figures, rounds: int, way: str
) -> None:
    """A load, bare and up to the end of the first forward pass, beside that of a stock model with as many bytes."""
    subject = checkpoints.flags_only if way == "skipped by flags alone" else checkpoints.pruned
    baselines = {STOCK: lambda: loads.load(checkpoints.as_large, MODE, "base")}
    if way == "by the checkpoint's own code":
        baselines[LEAST_CODE] = lambda: loads.load(checkpoints.least_code, MODE, "pruned")
    compare_loads(
        benchmark, figures, f"{checkpoints.size}, {way}", ours=lambda: loads.load(subject, MODE, WAYS[way]),
        baselines=baselines, kept_bytes=checkpoints.kept_bytes if way in OURS else None,
        memory=("anonymous", "file_backed"), rounds=ROUNDS * rounds,
    )  # fmt: skip


def _modes() -> list[LoadingMode]:
    """Return every way of loading that runs here."""
    modes = (*loading_modes(), *loading_modes(("disk-all",), quantisations=()))
    return [mode for mode in modes if not mode.missing]


@pytest.mark.parametrize("mode", _modes(), ids=lambda mode: mode.name)
def test_bytes_held(checkpoints: Checkpoints, figures: Figures, tmp_path: Path, mode: LoadingMode) -> None:
    """What a load holds is what its mode predicts: kept bytes, the state of a quantisation, less what is offloaded."""
    if checkpoints.size != "small":
        pytest.skip("the small one has the same modules: its bytes are as predicted or not, and 8-bit takes long")
    pruned, plan = checkpoints.pruned, checkpoints.pruned.plan
    predicted = predicted_bytes(pruned.root, mode, plan)
    held = resident_weight_bytes(
        load_pruned(pruned.root, **mode.arguments(pruned.config["num_hidden_layers"], plan, tmp_path))
    )
    assert held == predicted
    figures.add(Amount.of(f"tensor bytes held, {mode.name}", [held], "B", f"{predicted} B, to the byte"))
