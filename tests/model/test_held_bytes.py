"""A load holds what its mode predicts, to the byte."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from benchmarks.held_bytes import predicted_bytes
from harness.faults.catalogue.code import RESIDENT
from harness.faults.planting.code_edits import edit_foreign
from harness.models.modes import LoadingMode, loading_modes
from harness.models.resident import resident_weight_bytes
from harness.strategies import plans, tiny_specs
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints

MODES = [
    mode
    for mode in (*loading_modes(), *loading_modes(("disk-all",), quantisations=()))
    if not (mode.is_quantised and mode.is_offloaded)  # which nobody can load
]


def _held(checkpoint: Path, mode: LoadingMode, plan: PrunePlan, layers: int, folder: Path) -> int:
    model: Any = load_pruned(checkpoint, **mode.arguments(layers, plan, folder))
    return resident_weight_bytes(model)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@settings(max_examples=5)
@given(data=st.data())
def test_tensor_bytes_are_as_predicted(
    checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mode: LoadingMode
) -> None:
    """Kept bytes in the target dtype, plus the state of a quantisation, less what is offloaded: no byte too many."""
    if mode.missing:
        pytest.skip(mode.missing)
    spec = data.draw(tiny_specs(quantisable=True))
    plan = data.draw(plans(spec.layers))
    _, pruned = checkpoints(spec, plan)
    held = _held(pruned, mode, plan, spec.layers, tmp_path_factory.mktemp("offloaded"))
    assert held == predicted_bytes(pruned, mode, plan)


def test_bytes_that_should_not_be_there(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Planted: a class that skips by flags alone holds the random weights of what is pruned, too."""
    plan, mode = PrunePlan(self_attn=(1,)), LoadingMode("plain", "bfloat16")
    spec = TinySpec(layers=2, dtype="bfloat16")
    _, pruned = checkpoints(spec, plan)
    edit_foreign(RESIDENT)(pruned, tmp_path / "flags")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "flags", trust_remote_code=True, **mode.arguments(spec.layers, plan, tmp_path)
    )
    query, key = spec.heads * spec.head_dim, spec.key_value_heads * spec.head_dim
    attention = 2 * spec.hidden_size * (query + key) + 2 * spec.head_dim
    assert resident_weight_bytes(model) - predicted_bytes(pruned, mode, plan) == 2 * attention
