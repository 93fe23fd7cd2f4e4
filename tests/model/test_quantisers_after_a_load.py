"""Quantisers that are applied to a model after its load find nothing in pruned modules, and change the rest alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from harness.reference.models import identity_reference, reference_logits, zero_weight_reference
from harness.reference.tolerances import assert_logits_close
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints
from tests.model.hollow import assert_hollow

SPEC = TinySpec(layers=4, layer_types="mixed")
PLANS = {
    "some pruned": PrunePlan(self_attn=[0, 2], mlp=[1, 2]),
    "everything pruned": PrunePlan(self_attn=range(4), mlp=range(4)),
}
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))

pytestmark = [
    # torch 2.13.0 says that torchao replaces its own quantisation; optimum-quanto 0.2.7 uses deprecated names.
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:optimum.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:optimum.*"),
]


def _torch_dynamic(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def _torchao(model: nn.Module) -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


def _torchao_dynamic(model: nn.Module) -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    return model


def _quanto(model: nn.Module) -> nn.Module:
    quanto = pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed")
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    return model


QUANTISERS = {
    "torch.ao dynamic": _torch_dynamic,
    "torchao weights": _torchao,
    "torchao dynamic": _torchao_dynamic,
    "optimum-quanto": _quanto,
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("residual_length", [4, 128])
def test_a_quantised_kv_cache(checkpoints: Checkpoints, plan: str, residual_length: int) -> None:
    """With a KV cache that optimum-quanto quantises, ours says what the reference says with the same cache."""
    pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed")
    base, pruned = checkpoints(TinySpec(layers=4), PLANS[plan])
    models = load_pruned(pruned), identity_reference(base, PLANS[plan].self_attn, PLANS[plan].mlp)
    quantised = {"backend": "quanto", "nbits": 4, "residual_length": residual_length, "q_group_size": 32}
    ours, expected = (
        model.generate(
            IDS,
            attention_mask=torch.ones_like(IDS),
            max_new_tokens=12,
            do_sample=False,
            cache_implementation="quantized",
            cache_config=quantised,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for model in models
    )
    for got, wanted in zip(ours.logits, expected.logits, strict=True):
        context = f"quantised KV cache, {plan}"
        assert_logits_close(got[:, None], wanted[:, None], dtype="float32", operation="cached", context=context)
    assert ours.sequences.tolist() == expected.sequences.tolist()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", QUANTISERS)
def test_quantised_as_the_reference_is(checkpoints: Checkpoints, name: str, plan: str) -> None:
    """Quantised after the load, ours computes what the zero-weight reference computes that was quantised alike."""
    quantise: Callable[[Any], Any] = QUANTISERS[name]
    base, pruned = checkpoints(SPEC, PLANS[plan])
    ours = load_pruned(pruned)
    exact = reference_logits(ours, IDS)
    reference = quantise(zero_weight_reference(base, PLANS[plan].self_attn, PLANS[plan].mlp))
    ours = quantise(ours)
    assert_hollow(ours)
    expected = reference_logits(reference, IDS)
    # Planted: a quantiser that is left out shows where anything is left to quantise.
    if plan == "some pruned":
        assert (exact - expected).abs().max() > 1e-3
    assert_logits_close(
        reference_logits(ours, IDS), expected, dtype="float32", operation="reference", context=f"{name}, {plan}"
    )
