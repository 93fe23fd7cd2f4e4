"""Strategies and tiny checkpoints: valid values only, faults visible everywhere, small failing examples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.reference.models import identity_reference, reference_logits
from harness.reference.tolerances import tolerance
from harness.strategies import Dtype, checkpoints, configurations, plans, tiny_specs, token_batches
from harness.tiny import TinySpec, layer_types, quantisable, tensor_shapes, tiny_state_dict, write_tiny_checkpoint
from pruning import PrunePlan

IDS = torch.tensor([[5, 9, 33, 2, 60, 17, 8, 41, 3]])
SETTINGS = settings(max_examples=2000, database=None, derandomize=True)

LAYERS = range(5)
CAUSES = {
    "first-attention": PrunePlan(self_attn=(0,)),
    "last-mlp": PrunePlan(mlp=(4,)),
    "whole-layer": PrunePlan(self_attn=(2,), mlp=(2,)),
    "three": PrunePlan(self_attn=(1, 4), mlp=(3,)),
    "every-attention": PrunePlan(self_attn=tuple(LAYERS)),
    "everything": PrunePlan(self_attn=tuple(LAYERS), mlp=tuple(LAYERS)),
    "nothing": PrunePlan(),
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=list(CAUSES))
def test_plans_shrink_to_the_cause(cause: PrunePlan) -> None:
    """Whatever sub-layers make a test fail, the plan that is reported prunes them and no other."""

    def fails(plan: PrunePlan) -> bool:
        return set(cause.self_attn) <= set(plan.self_attn) and set(cause.mlp) <= set(plan.mlp)

    assert find(plans(5), fails, settings=SETTINGS) == cause


@given(data=st.data(), layers=st.integers(1, 8))
def test_plans_are_valid(data: st.DataObject, layers: int) -> None:
    """Plans name layers of the model only, and as many sub-layers as were asked for."""
    min_pruned = data.draw(st.integers(0, 2))
    plan = data.draw(plans(layers, min_pruned=min_pruned))
    assert set(plan.self_attn) | set(plan.mlp) <= set(range(layers))
    assert len(plan.self_attn) + len(plan.mlp) >= min_pruned


@settings(max_examples=30, deadline=None)
@given(spec=tiny_specs())
def test_tiny_checkpoints_load(tmp_path_factory: pytest.TempPathFactory, spec: TinySpec) -> None:
    """Every spec makes a checkpoint that fills the stock class exactly and carries the spec's settings."""
    base = write_tiny_checkpoint(spec, tmp_path_factory.mktemp("tiny") / "base")
    model = identity_reference(base, (), (), dtype=getattr(torch, spec.dtype))  # refuses inexact loads
    stored = tiny_state_dict(spec)
    parameters = dict(model.named_parameters())  # a tied head is listed once, as the embedding
    assert parameters.keys() == stored.keys()
    assert all(torch.equal(parameters[name], tensor) for name, tensor in stored.items())
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}  # 5.x, 4.57
    assert rope["rope_theta"] == spec.rope_theta
    assert config.rms_norm_eps == spec.rms_norm_eps
    assert config.layer_types == layer_types(spec)
    assert config.tie_word_embeddings == spec.tied
    if "sliding_attention" in config.layer_types:
        assert config.sliding_window == spec.sliding_window


@given(data=st.data())
def test_bounds_of_specs(data: st.DataObject) -> None:
    """Bounds hold for every spec drawn within them."""
    spec = data.draw(
        tiny_specs(min_layers=2, max_layers=3, max_shards=1, dtypes=("bfloat16",), sliding=False, quantisable=True)
    )
    assert 2 <= spec.layers <= 3
    assert spec.shards == 1
    assert spec.dtype == "bfloat16"
    assert set(layer_types(spec)) == {"full_attention"}
    assert quantisable(spec)


@given(data=st.data(), vocabulary_size=st.integers(1, 99), left_padding=st.booleans())
def test_batches_are_valid(data: st.DataObject, vocabulary_size: int, left_padding: bool) -> None:
    """Batches hold tokens of the vocabulary, padding on the left only, and a token in each row."""
    ids, mask = data.draw(
        token_batches(vocabulary_size, min_batch=2, max_batch=3, min_tokens=2, max_tokens=5, left_padding=left_padding)
    )
    assert ids.shape == mask.shape
    assert 2 <= ids.shape[0] <= 3
    assert 2 <= ids.shape[1] <= 5
    assert ids.dtype == mask.dtype == torch.int64
    assert int(ids.min()) >= 0
    assert int(ids.max()) < vocabulary_size
    assert bool(((mask == 0) | (mask == 1)).all())
    assert bool((mask.diff(dim=1) >= 0).all())
    assert bool((mask[:, -1] == 1).all())
    assert bool((ids[mask == 0] == 0).all())
    if not left_padding:
        assert bool(mask.all())


@given(data=st.data())
def test_configurations_are_those_of_checkpoints(data: st.DataObject) -> None:
    """A configuration can be changed without a trace, and is within the bounds of the spec that it is made of."""
    config = data.draw(configurations(min_layers=2, max_layers=3, dtypes=("bfloat16",), sliding=False))
    assert config["model_type"] == "qwen3"
    assert config["num_hidden_layers"] in (2, 3)
    assert config["torch_dtype"] == "bfloat16"
    assert set(config["layer_types"]) == {"full_attention"}
    assert json.loads(json.dumps(config)) == config
    config.clear()


def test_configurations_shrink() -> None:
    """The smallest configuration that meets a condition is found, as the smallest spec is."""
    config = find(configurations(), lambda config: config["attention_bias"], settings=SETTINGS)
    assert config["attention_bias"]
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (1, 1)


def test_left_padding_is_drawn() -> None:
    """Some batches mix padded and full rows; the simplest such batch is two rows of two tokens."""
    ids, mask = find(token_batches(9), lambda batch: set(batch[1][:, 0].tolist()) == {0, 1}, settings=SETTINGS)
    assert ids.shape == (2, 2)
    assert sorted(mask.tolist()) == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: plans(0), "num_hidden_layers must be at least 1, but got num_hidden_layers=0"),
        (
            lambda: plans(3, min_pruned=7),
            "min_pruned must be in 0 to 6, two sub-layers a layer, but got min_pruned=7",
        ),
        (lambda: tiny_specs(min_layers=0), "min_layers must be at least 1, but got min_layers=0"),
        (
            lambda: tiny_specs(min_layers=5, max_layers=4),
            "max_layers must be at least min_layers=5, but got max_layers=4",
        ),
        (lambda: tiny_specs(max_shards=0), "max_shards must be at least 1, but got max_shards=0"),
        (
            lambda: tiny_specs(dtypes=()),
            "dtypes must be one or several of ('float32', 'bfloat16'), but got dtypes=()",
        ),
        (lambda: configurations(min_layers=0), "min_layers must be at least 1, but got min_layers=0"),
        (lambda: checkpoints(max_shards=0), "max_shards must be at least 1, but got max_shards=0"),
        (
            lambda: checkpoints(min_layers=2, min_pruned=5),
            "min_pruned must be in 0 to 4, two sub-layers a layer, but got min_pruned=5",
        ),
        (lambda: token_batches(0), "vocabulary_size must be at least 1, but got vocabulary_size=0"),
        (
            lambda: token_batches(9, min_batch=4),
            "max_batch must be at least min_batch=4, but got max_batch=3",
        ),
        (
            lambda: token_batches(9, min_tokens=13),
            "max_tokens must be at least min_tokens=13, but got max_tokens=12",
        ),
    ],
)
def test_impossible_requests(build: Callable[[], SearchStrategy[object]], message: str) -> None:
    """A request that no value can meet raises where the strategy is built, and says what was expected."""
    with pytest.raises(ValueError) as raised:
        build()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, but got layers=0"),
        (
            {"vocabulary_size": 2},
            "vocabulary_size must exceed the special token ids 0 to 2, but got vocabulary_size=2",
        ),
        ({"heads": 3}, "key_value_heads must divide heads=3, but got key_value_heads=2"),
        ({"head_dim": 7}, "head_dim must be even and positive, but got head_dim=7"),
        (
            {"layer_types": ("full_attention",)},
            "layer_types must have one entry a layer, 4 in all, but got layer_types=('full_attention',)",
        ),
        ({"shards": 47}, "shards must be in 1 to 46, one tensor each, but got shards=47"),
    ],
)
def test_impossible_specs(values: dict[str, Any], message: str) -> None:
    """A spec that no checkpoint can have is refused by name and value."""
    with pytest.raises(ValueError) as raised:
        TinySpec(**values)
    assert str(raised.value) == message


def test_files_of_a_checkpoint(tmp_path: Path) -> None:
    """One file or several shards hold the same tensors, and the index names each with the right total size."""
    single = write_tiny_checkpoint(TinySpec(), tmp_path / "single")
    sharded = write_tiny_checkpoint(TinySpec(shards=3), tmp_path / "sharded")
    assert sorted(path.name for path in single.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    tensors = load_file(single / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == tensor_shapes(TinySpec())
    index = json.loads((sharded / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    assert len(set(index["weight_map"].values())) == 3
    for name, file_name in index["weight_map"].items():
        with safe_open(sharded / file_name, framework="pt") as shard:
            assert torch.equal(shard.get_tensor(name), tensors[name])


def test_equal_specs_give_equal_bytes(tmp_path: Path) -> None:
    """A spec determines every byte of its checkpoint, and another seed changes the weights."""
    first = write_tiny_checkpoint(TinySpec(), tmp_path / "first")
    again = write_tiny_checkpoint(TinySpec(), tmp_path / "again")
    other = write_tiny_checkpoint(TinySpec(seed=1), tmp_path / "other")
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    """A directory with a checkpoint in it is refused."""
    write_tiny_checkpoint(TinySpec(), tmp_path)
    with pytest.raises(FileExistsError) as raised:
        write_tiny_checkpoint(TinySpec(shards=2), tmp_path)
    assert str(raised.value) == f"{tmp_path} holds a checkpoint already; write each into a directory of its own"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_sub_layer_matters(tmp_path: Path, dtype: Dtype) -> None:
    """Leaving out any one sub-layer moves the logits by several times the widest tolerance."""
    base = write_tiny_checkpoint(TinySpec(dtype=dtype), tmp_path / "base")
    whole = reference_logits(identity_reference(base, (), (), dtype=getattr(torch, dtype)), IDS)
    needed = 2 * tolerance(dtype, "padding").relative * whole.abs().max()
    for index in range(4):
        for plan in (((index,), ()), ((), (index,))):
            pruned = reference_logits(identity_reference(base, *plan, dtype=getattr(torch, dtype)), IDS)
            assert (pruned - whole).abs().max() > needed, plan


def test_every_tensor_and_setting_matters(tmp_path: Path) -> None:
    """A norm of ones, or the default rope theta or eps, moves the logits by far more than any tolerance."""
    base = write_tiny_checkpoint(TinySpec(), tmp_path / "base")
    expected = reference_logits(identity_reference(base, (), ()), IDS)
    needed = 100 * tolerance("float32", "padding").relative * expected.abs().max()
    norms = [name for name in tensor_shapes(TinySpec()) if name.endswith("norm.weight")]
    assert len(norms) == 4 * 4 + 1
    for name in norms:
        model = identity_reference(base, (), ())
        with torch.no_grad():
            model.get_parameter(name).fill_(1)
        assert (reference_logits(model, IDS) - expected).abs().max() > needed, name
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for setting, default in (("rope_theta", 10_000.0), ("rms_norm_eps", 1e-6)):
        (base / "config.json").write_text(json.dumps({**config, setting: default}), encoding="utf-8")
        changed = AutoModelForCausalLM.from_pretrained(base)
        assert (reference_logits(changed, IDS) - expected).abs().max() > needed, setting
