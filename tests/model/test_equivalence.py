"""A pruned checkpoint computes what the unpruned one does without the pruned sub-layers, for any model and any plan."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from harness.reference.models import identity_reference, reference_logits, zero_weight_reference
from harness.reference.tolerances import assert_logits_close
from harness.strategies import plans, tiny_specs, token_batches
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from pruning.remote.modeling_pruned_qwen3 import PrunedQwen3DecoderLayer
from tests.model.conftest import Checkpoints

LAYERS = 4
PLANS = {
    "nothing": PrunePlan(),
    "everything": PrunePlan(self_attn=range(LAYERS), mlp=range(LAYERS)),
    "layer 0": PrunePlan(self_attn=[0], mlp=[0]),
    "first attention": PrunePlan(self_attn=[0]),
    "first MLP": PrunePlan(mlp=[0]),
    "last layer": PrunePlan(self_attn=[LAYERS - 1], mlp=[LAYERS - 1]),
    "whole layers": PrunePlan(self_attn=[1, 2], mlp=[1, 2]),
    "in turn": PrunePlan(self_attn=[0, 2], mlp=[1, 3]),
}
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))


def _stored_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint directory, read by the safetensors library."""
    tensors = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  # no dict
    return tensors


def _assert_holds_its_file(model: Any, checkpoint: Path) -> None:
    """Check that the model's state dict is the checkpoint's content: keys, dtypes, shapes and bytes."""
    stored, resident = _stored_tensors(checkpoint), dict(model.state_dict())
    if model.config.tie_word_embeddings:
        assert resident["lm_head.weight"].data_ptr() == resident["model.embed_tokens.weight"].data_ptr()
        stored.setdefault("lm_head.weight", stored["model.embed_tokens.weight"])
    assert resident.keys() == stored.keys()
    for key, tensor in stored.items():
        assert resident[key].dtype == tensor.dtype, key
        assert resident[key].shape == tensor.shape, key
        assert torch.equal(resident[key].view(torch.uint8), tensor.view(torch.uint8)), key


def _assert_equivalent(
    base: Path, pruned: Path, plan: PrunePlan, ids: torch.Tensor, mask: torch.Tensor | None = None, **kwargs: Any
) -> None:
    """Check a pruned checkpoint's logits against both references', and theirs against each other."""
    got = reference_logits(load_pruned(pruned, **kwargs), ids, mask)
    kwargs = {"dtype": "auto", **kwargs}
    identity = reference_logits(identity_reference(base, plan.self_attn, plan.mlp, **kwargs), ids, mask)
    zeros = reference_logits(zero_weight_reference(base, plan.self_attn, plan.mlp, **kwargs), ids, mask)
    dtype = json.loads((base / "config.json").read_text())["torch_dtype"]
    for left, right, operation, context in (
        (got, identity, "reference", f"{plan}: pruned against identity reference"),
        (got, zeros, "zero_weight", f"{plan}: pruned against zero-weight reference"),
        (identity, zeros, "zero_weight", f"{plan}: one reference against the other"),
    ):
        assert_logits_close(left, right, dtype=dtype, operation=operation, context=context, mask=mask)


@settings(max_examples=30)
@given(data=st.data())
def test_any_model_any_plan(checkpoints: Checkpoints, data: st.DataObject) -> None:
    """Whatever the model and the plan, the logits are both references' and the memory holds the file's bytes."""
    spec = data.draw(tiny_specs())
    plan = data.draw(plans(spec.layers))
    ids, mask = data.draw(token_batches(spec.vocabulary_size))
    base, pruned = checkpoints(spec, plan)
    _assert_equivalent(base, pruned, plan, ids, mask)
    model = load_pruned(pruned)
    _assert_holds_its_file(model, pruned)
    assert [name for name, _ in model.pruned_modules()] == [f"model.{each}" for each in plan]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", PLANS)
def test_named_plans(checkpoints: Checkpoints, name: str, attention: str) -> None:
    """The plans that lie at the edges hold, with either implementation of attention."""
    spec = TinySpec(layers=LAYERS, layer_types="mixed", tied=name == "everything", shards=3)
    base, pruned = checkpoints(spec, PLANS[name])
    _assert_equivalent(base, pruned, PLANS[name], IDS, attn_implementation=attention)


@settings(max_examples=10)
@given(data=st.data())
def test_saving_gives_back_the_same_bytes(
    checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """`save_pretrained` after a load writes the same keys, bytes and code, no manifest, and loads like before."""
    spec = data.draw(tiny_specs())
    plan = data.draw(plans(spec.layers))
    _assert_round_trip(checkpoints(spec, plan)[1], plan, tmp_path_factory.mktemp("saved"))


def _assert_round_trip(pruned: Path, plan: PrunePlan, saved: Path) -> None:
    (saved / "pruning.json").write_text("{}")  # of a checkpoint that was there before
    model = load_pruned(pruned)
    model.save_pretrained(saved)
    assert not (saved / "pruning.json").exists()
    assert {path.name: path.read_bytes() for path in saved.glob("*.py")} == {
        path.name: path.read_bytes() for path in pruned.glob("*.py")
    }
    assert PrunePlan.from_config(json.loads((saved / "config.json").read_text())) == plan
    before, after = _stored_tensors(pruned), _stored_tensors(saved)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key].view(torch.uint8), after[key].view(torch.uint8)) for key in before)
    loaded, report = load_pruned(saved, output_loading_info=True)
    assert not any(report.values())
    _assert_holds_its_file(loaded, saved)
    ids = IDS % model.config.vocab_size
    assert torch.equal(reference_logits(loaded, ids), reference_logits(model, ids))


def test_more_than_ten_layers(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Layer 1 and layers 10 and 11 are told apart: in the plan, in the keys and after being saved again."""
    plan = PrunePlan(self_attn=[1, 11], mlp=[10])
    base, pruned = checkpoints(TinySpec(layers=12), plan)
    _assert_equivalent(base, pruned, plan, IDS)
    _assert_holds_its_file(load_pruned(pruned), pruned)
    _assert_round_trip(pruned, plan, tmp_path)


def test_saving_over_the_checkpoint_itself(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Saved into the directory it came from, with a weight changed, the checkpoint loads: its manifest is gone."""
    _, pruned = checkpoints(TinySpec(), PLANS["layer 0"])
    copy = Path(shutil.copytree(pruned, tmp_path / "copy"))
    model = load_pruned(copy)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    expected = reference_logits(model, IDS)
    model.save_pretrained(copy)
    assert not (copy / "pruning.json").exists()
    assert torch.equal(reference_logits(load_pruned(copy), IDS), expected)


def _norm_still_added(layer: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    for pruned, norm, module in (
        (layer.prune_self_attn, layer.input_layernorm, lambda normed: layer.self_attn(normed, **kwargs)[0]),
        (layer.prune_mlp, layer.post_attention_layernorm, layer.mlp),
    ):
        normed = norm(hidden_states)
        hidden_states = hidden_states + (normed if pruned else module(normed))
    return hidden_states


def _mlp_still_skipped(layer: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    if not layer.prune_self_attn:
        hidden_states = hidden_states + layer.self_attn(layer.input_layernorm(hidden_states), **kwargs)[0]
    return hidden_states


def _residual_lost(layer: Any, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    output = PrunedQwen3DecoderLayer.unplanted_forward(layer, hidden_states, **kwargs)
    return torch.zeros_like(output) if layer.prune_self_attn and layer.prune_mlp else output


@pytest.mark.parametrize("planted", [_norm_still_added, _mlp_still_skipped, _residual_lost])
def test_a_wrong_forward_is_caught(
    checkpoints: Checkpoints, planted: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a forward that skips wrongly does not pass as equal to the references."""
    base, pruned = checkpoints(TinySpec(), PLANS["layer 0"])
    _assert_equivalent(base, pruned, PLANS["layer 0"], IDS)
    original = PrunedQwen3DecoderLayer.forward
    monkeypatch.setattr(PrunedQwen3DecoderLayer, "unplanted_forward", original, raising=False)
    monkeypatch.setattr(PrunedQwen3DecoderLayer, "forward", planted)
    with pytest.raises(AssertionError):
        _assert_equivalent(base, pruned, PLANS["layer 0"], IDS)


@pytest.mark.parametrize("other", [PrunePlan(self_attn=[1], mlp=[0]), PrunePlan(mlp=[0]), PrunePlan([0, 3], [0])])
def test_another_plan_is_caught(checkpoints: Checkpoints, other: PrunePlan) -> None:
    """Planted: the references of a plan that differs in one sub-layer are told from the right ones."""
    base, pruned = checkpoints(TinySpec(), PLANS["layer 0"])
    with pytest.raises(AssertionError):
        _assert_equivalent(base, pruned, other, IDS)


def test_a_changed_weight_is_caught(checkpoints: Checkpoints) -> None:
    """Planted: one bit of one resident weight that is not the file's is seen."""
    _, pruned = checkpoints(TinySpec(dtype="bfloat16"), PLANS["in turn"])
    model = load_pruned(pruned)
    weight = model.model.layers[3].self_attn.k_norm.weight
    with torch.no_grad():
        weight.view(torch.int16)[0] ^= 1
    with pytest.raises(AssertionError, match=r"model\.layers\.3\.self_attn\.k_norm\.weight"):
        _assert_holds_its_file(model, pruned)
