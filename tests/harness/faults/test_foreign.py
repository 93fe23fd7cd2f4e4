"""The foreign checkpoint is sound: a third party's code computes what the reference computes, in every cache."""

import pytest
import torch

from harness.faults import foreign_checkpoint
from harness.faults.planting.checkpoint_files import all_tensors, config_of
from harness.faults.planting.loading import from_own_code, scratch_checkpoint
from harness.reference.models import identity_reference
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint
from tests.harness.faults.observing import EVERY_TOKEN, LEFT_PADDED, assert_same, cached, uncached

FULL, SLIDING = "full_attention", "sliding_attention"
PLANS = {
    "middle": ("full", PrunePlan(self_attn=[1], mlp=[2])),
    "first attention": ("full", PrunePlan(self_attn=[0], mlp=[0])),
    "first attention of mixed": ("mixed", PrunePlan(self_attn=[0, 1], mlp=[3])),
    "every sliding": ((FULL, SLIDING, FULL, SLIDING), PrunePlan(self_attn=[1, 3])),
    "everything": ("mixed", PrunePlan(self_attn=range(4), mlp=range(4))),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PLANS)
def test_every_logit_is_the_reference_s(name, dtype, tmp_path):
    """Uncached, and through dynamic and static caches, padded and not, the logits are the reference's."""
    layer_types, plan = PLANS[name]
    base = write_tiny_checkpoint(TinySpec(layer_types=layer_types, dtype=dtype), tmp_path / "base")
    prune_checkpoint(base, tmp_path / "pruned", plan, sync=False)
    reference = identity_reference(base, plan.self_attn, plan.mlp, dtype="auto")
    with scratch_checkpoint() as scratch:
        foreign_checkpoint(tmp_path / "pruned", scratch)
        model = from_own_code(scratch)
        for mask in (EVERY_TOKEN, LEFT_PADDED):
            context = f"{name}, {int((1 - mask).sum())} padding"
            assert_same(uncached(model, mask), uncached(reference, mask), context, mask)
            for kind in ("dynamic", "static"):
                context += f", {kind} cache"
                assert_same(cached(model, kind, mask), cached(reference, kind, mask), context, mask)


def test_same_weights_other_words(case, tmp_path):
    """Every tensor is the pruned checkpoint's; plan, class and model type are said in the foreign words."""
    sound = case("mixed").sound
    foreign_checkpoint(sound, tmp_path / "foreign")
    before, after = all_tensors(sound), all_tensors(tmp_path / "foreign")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    config = config_of(tmp_path / "foreign")
    assert (config["skip_attention"], config["skip_mlp"], config["model_type"]) == ([0, 1], [1], "qwen3")
    assert "per_layer_config" not in config
    assert [path.name for path in (tmp_path / "foreign").glob("*.py")] == ["modeling_skipping_qwen3.py"]


def test_foreign_stays_foreign(case, tmp_path):
    """A checkpoint that is foreign already is copied as it is."""
    foreign_checkpoint(case("mixed").sound, tmp_path / "foreign")
    foreign_checkpoint(tmp_path / "foreign", tmp_path / "again")
    assert config_of(tmp_path / "foreign") == config_of(tmp_path / "again")


def test_saved_and_loaded_again(case, tmp_path):
    """What the foreign class saves carries its code, and loads with the same logits."""
    full = case("full")
    with scratch_checkpoint() as scratch, scratch_checkpoint() as again:
        foreign_checkpoint(full.sound, scratch)
        from_own_code(scratch).save_pretrained(again)
        got = uncached(from_own_code(again))
    assert_same(got, uncached(full.reference(torch.float32)), "saved and loaded again")
