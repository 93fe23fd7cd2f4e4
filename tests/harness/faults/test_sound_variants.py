"""The sound variants are sound: each agrees with the reference, uncached and cached."""

import pytest
import torch

from harness.faults import SOUND_VARIANTS
from tests.harness.faults.conftest import SPECS
from tests.harness.faults.observing import IDS, Case, assert_same, cached, loaded, uncached

OPERATION = {
    "disk-offload": "offload",
    "eager": "attention_implementation",
    "fewer-attentions": "attention_implementation",
}
# No case here has a tokenizer.
WITH_A_TOKENIZER = {"tokenizer-saved-again"}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("variant_id", SOUND_VARIANTS)
def test_agrees_with_the_reference(variant_id, name, case):
    """Wherever the variant can be made, its logits are the reference's, and those through a cache, too."""
    variant = SOUND_VARIANTS[variant_id]
    each: Case = case(name)
    if variant.needs() or variant.requires(each.sound):
        return  # some case suits every variant: see below
    operation = OPERATION.get(variant_id, "reference")
    with loaded(variant, each.sound) as model:
        reference = each.reference(model.dtype)
        assert_same(uncached(model), uncached(reference), variant_id, operation=operation)
        assert_same(
            cached(model, "dynamic"), cached(reference, "dynamic"), f"{variant_id}, cached", operation=operation
        )


def test_some_case_suits_every_variant(case):
    """No variant is left untested for want of a checkpoint."""
    for variant_id, variant in SOUND_VARIANTS.items():
        if variant_id in WITH_A_TOKENIZER:
            continue  # judged where the checks are tested, on checkpoints that have one
        assert any(variant.requires(case(name).sound) is None for name in SPECS)


def test_fewer_attentions_are_returned(case):
    """With a pruned self_attn, fewer attentions come back than there are layers."""
    with loaded(SOUND_VARIANTS["fewer-attentions"], case("full").sound) as model, torch.no_grad():
        assert len(model(IDS).attentions) == 3


def test_gradient_checkpointing_is_on(case):
    """Gradients come out of a model that checkpoints them."""
    with loaded(SOUND_VARIANTS["gradient-checkpointing"], case("full").sound) as model:
        assert model.is_gradient_checkpointing
        model.train()(IDS, labels=IDS).loss.backward()
        assert model.get_input_embeddings().weight.grad is not None
