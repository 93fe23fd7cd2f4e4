"""What loaded models cost in bytes is exact, and a gain that does not arrive is seen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.bench.disk import stored_costs
from harness.bench.measurement import Measurement
from harness.bench.run_costs import Workload, running_costs
from harness.faults.catalogue.code import RESIDENT
from harness.faults.catalogue.weights import keep_pruned_keys
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.modeling_files import foreign_checkpoint
from harness.models.modes import LoadingMode
from harness.models.session import Session
from harness.subject.subject import Subject, read_subject
from harness.tiny import TinySpec
from pruning import PrunePlan, removed_bytes

Pair = tuple[Path, Path]
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1,))
PLAIN = LoadingMode("plain", "float32")
WORKLOAD = Workload(prompt_tokens=(5, 9), new_tokens=3, batch=(1, 2), repeats=1)
CACHE = "KV cache a token"


@pytest.fixture(scope="module")
def pair(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A base and a checkpoint in which layer 0's attention is pruned."""
    return tiny_checkpoints(TinySpec(layers=3, tied=False), PLAN)


def subject_of(base: Path, pruned: Path) -> Subject:
    """What is benchmarked, trusted."""
    return read_subject(pruned, base, trust_remote_code=True)


def costs_of(subject: Subject, scratch: Path, mode: LoadingMode = PLAIN) -> dict[str, Measurement]:
    """The costs of the loaded models by their labels."""
    session = Session(subject, mode, scratch)
    clock: list[float] = []
    costs, notes = running_costs(session, WORKLOAD, clock, lambda text: None)
    session.close()
    assert len(clock) == len(WORKLOAD.settings) * (WORKLOAD.repeats + 1) * 2
    assert all(seconds > 0 for seconds in clock)
    assert [note.split(".")[0] for note in notes] == ["A static KV cache is allocated whole"]
    return {cost.label: cost for cost in costs}


def test_sound(pair: Pair, tmp_path: Path) -> None:
    """Of a sound checkpoint bytes are what is predicted, the cache's but for an element a token and attention."""
    base, pruned = pair
    subject = subject_of(base, pruned)
    files, tensors = stored_costs(subject)
    assert tensors.arrived == 1
    assert tensors.base[0] - tensors.pruned[0] == removed_bytes(base, PLAN)
    assert files.base == ((base / "model.safetensors").stat().st_size,)
    costs = costs_of(subject, tmp_path)
    weights = costs["resident weights"]
    assert weights.pruned == (weights.predictions[0].pruned,)
    assert weights.base[0] - weights.pruned[0] == removed_bytes(base, PLAN)
    caches = [cost for cost in costs.values() if cost.name == CACHE]
    assert len(caches) == 4
    for cost in (*caches, costs[f"{CACHE} (static), tokens in all 12"]):
        assert cost.base == (cost.predictions[0].base,) == (3 * 2 * 2 * 32 * 4,)
        assert cost.pruned[0] - cost.predictions[0].pruned == pytest.approx(4 * len(PLAN.self_attn))
    assert {cost.name for cost in costs.values()} == {
        "resident weights", "time to first token", "decode, a step", CACHE, f"{CACHE} (static)",
    }  # fmt: skip
    timed = costs["time to first token, batch 2, prompt tokens 9"]
    assert (timed.tokens, len(timed.base), timed.predictions[0].quantity) == (18, 1, "multiply-adds")
    step = costs["decode, a step, batch 2, prompt tokens 9"]
    assert (step.tokens, step.predictions[0].quantity) == (2, "bytes")
    assert all(0 < prediction.removed < 1 for cost in (timed, step) for prediction in cost.predictions)


def test_offloaded(pair: Pair, tmp_path: Path) -> None:
    """What is offloaded is resident neither in the base nor, as predicted, in the pruned model."""
    costs = costs_of(subject_of(*pair), tmp_path, LoadingMode("disk-all", "bfloat16"))
    weights = costs["resident weights"]
    assert weights.pruned == (weights.predictions[0].pruned,)
    assert weights.base == weights.pruned


def test_resident_weights_that_are_pruned(pair: Pair, tmp_path: Path) -> None:
    """Of a class that skips by flags alone, whose random weights stay, no byte of the predicted memory is gone."""
    base, pruned = pair
    edit_foreign(RESIDENT)(pruned, tmp_path / "flags")
    subject = subject_of(base, tmp_path / "flags")
    assert stored_costs(subject)[1].arrived == 1
    weights = costs_of(subject, tmp_path)["resident weights"]
    assert weights.arrived == 0
    assert weights.predictions[0].removed > 0


def test_a_cache_that_stores_the_pruned(pair: Pair, tmp_path: Path) -> None:
    """Of a class that fills the slots of pruned attentions at full width, no byte of the cache is gone."""
    base, pruned = pair
    foreign_checkpoint(pruned, tmp_path / "foreign")
    costs = costs_of(subject_of(base, tmp_path / "foreign"), tmp_path)
    caches = [cost for cost in costs.values() if cost.name.startswith(CACHE)]
    assert len(caches) == 5
    assert [cost.arrived for cost in caches] == [0] * 5
    assert all(cost.predictions[0].removed == pytest.approx(2 / 3) for cost in caches)
    assert costs["resident weights"].arrived == 1


def test_files_that_hold_the_pruned(pair: Pair, tmp_path: Path) -> None:
    """Of a checkpoint that stores what its plan prunes, no byte of the predicted ones is gone."""
    base, pruned = pair
    keep_pruned_keys(pruned, tmp_path / "kept")
    _, tensors = stored_costs(subject_of(base, tmp_path / "kept"))
    assert tensors.arrived == 0
    assert tensors.predictions[0].removed > 0


def test_files_that_are_left_over(pair: Pair, tmp_path: Path) -> None:
    """Files of weights that no load would read are bytes on the disk like any other."""
    base, pruned = pair
    foreign_checkpoint(pruned, tmp_path / "stale")
    left_over = (base / "model.safetensors").read_bytes()
    (tmp_path / "stale" / "model-00001-of-00001.safetensors").write_bytes(left_over)
    before, after = stored_costs(subject_of(base, pruned))[0], stored_costs(subject_of(base, tmp_path / "stale"))[0]
    assert after.pruned[0] - before.pruned[0] == len(left_over)
