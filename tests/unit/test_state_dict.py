import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning import CheckpointError, PrunePlan, SubLayer, prune_checkpoint, prune_state_dict
from pruning.state_dict import is_pruned, sublayer_of
from tests.unit.checkpoints import exactly, keys_of_layer, keys_of_model, plan_lists, read_tensors, write_checkpoint


@given(lists=plan_lists(4), prefix=st.sampled_from(["model.", ""]), tied=st.booleans())
def test_what_lies_under_a_pruned_sublayer_goes(lists, prefix, tied):
    """The keys under a pruned sub-layer go, all others stay in their order, and the values are the very same."""
    plan = PrunePlan(**lists)
    state_dict = {key: object() for key in keys_of_model(4, prefix=prefix, tied=tied)}
    before = dict(state_dict)
    pruned = prune_state_dict(state_dict, plan)
    gone = {
        key
        for sublayer in ("self_attn", "mlp")
        for layer_idx in getattr(plan, sublayer)
        for key in keys_of_layer(layer_idx, prefix)
        if f".{sublayer}." in key
    }
    assert list(pruned) == [key for key in before if key not in gone]
    assert all(pruned[key] is before[key] for key in pruned)
    assert state_dict == before


def test_the_same_keys_as_on_disk(tmp_path):
    """A dict in memory is pruned to the keys that a checkpoint on disk is pruned to."""
    plan = PrunePlan(self_attn=(0,), mlp=(0, 2))
    source = write_checkpoint(tmp_path / "source")
    prune_checkpoint(source, tmp_path / "out", plan)
    assert prune_state_dict(read_tensors(source), plan) == read_tensors(tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", SubLayer(0, "self_attn")),
        ("model.layers.12.mlp.up_proj.weight", SubLayer(12, "mlp")),
        ("layers.3.mlp.experts.5.w1.weight", SubLayer(3, "mlp")),
        ("model.layers.3.mlp.a\nb", SubLayer(3, "mlp")),
        ("model.layers.3.input_layernorm.weight", None),
        ("model.layers.3.mlp", None),
        ("model.layers.3.mlp.", None),
        ("model.layers.3.mlpx.weight", None),
        ("model.layers.3.pre_mlp.weight", None),
        ("model.layers.03.mlp.weight", None),
        ("model.layers.٣.mlp.weight", None),
        ("model.layers.-1.mlp.weight", None),
        (f"model.layers.{'1' * 5000}.mlp.weight", None),
        ("model.layers.x.mlp.weight", None),
        ("_orig_mod.model.layers.3.mlp.weight", None),
        ("draft.layers.3.mlp.weight", None),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
        ("", None),
    ],
)
def test_sublayer_of(key, expected):
    """A key's sub-layer and layer are read from its beginning, and only where transformers would find a module."""
    assert sublayer_of(key) == expected


def test_layers_are_told_apart_by_their_whole_number():
    """Pruning layer 1 leaves layers 10 and 11 alone."""
    plan = PrunePlan(mlp=(1,))
    assert is_pruned("model.layers.1.mlp.up_proj.weight", plan)
    assert not is_pruned("model.layers.10.mlp.up_proj.weight", plan)
    assert not is_pruned("model.layers.11.mlp.up_proj.weight", plan)
    assert not is_pruned("model.layers.1.self_attn.q_proj.weight", plan)


@pytest.mark.parametrize(
    "keys", [keys_of_model(2), [f"_orig_mod.{key}" for key in keys_of_model(4)], ["model.layers.3.mlp_norm.weight"], []]
)
def test_a_plan_that_meets_no_key(keys):
    """A sub-layer of which there is no key, out of range or behind a prefix, is refused with what was looked for."""
    message = "there is no tensor of mlp in layer 3: keys should begin with model.layers.3.mlp."
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_state_dict(dict.fromkeys(keys), PrunePlan(mlp=(3,)))


def test_an_empty_plan_copies():
    """An empty plan gives a new dict with all the keys."""
    state_dict = {"a": 1}
    pruned = prune_state_dict(state_dict, PrunePlan())
    assert pruned == state_dict
    assert pruned is not state_dict
