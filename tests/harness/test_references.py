"""The two references: they agree with each other, and the identity reference is right for every cache and load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Cache,
    DynamicCache,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
)

from harness.models.forward import with_cache
from harness.reference.models import identity_reference, reference_logits, zero_weight_reference
from harness.reference.tolerances import assert_logits_close
from harness.strategies import plans, tiny_specs, token_batches
from harness.tiny import TinySpec, write_tiny_checkpoint

IDS = torch.tensor([[5, 9, 33, 2, 60, 17, 8, 41, 3], [7, 7, 12, 50, 1, 28, 63, 4, 19]])  # (2, 9)
PRUNED = {"self_attn": (0, 2), "mlp": (1, 2)}
REFERENCES: tuple[Callable[..., Any], ...] = (identity_reference, zero_weight_reference)

each_kind_of_layers = pytest.mark.parametrize(
    ("layer_types", "self_attn"),
    [
        pytest.param("full", (0,), id="full"),
        pytest.param("sliding", (0, 1), id="sliding"),
        pytest.param("mixed", (0,), id="mixed-first-sliding-pruned"),
        pytest.param("mixed", (1,), id="mixed-first-full-pruned"),
        pytest.param("mixed", (0, 2), id="mixed-every-sliding-pruned"),
        pytest.param("mixed", (0, 1, 2, 3), id="mixed-every-attention-pruned"),
    ],
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A checkpoint of sliding and full layers, which 4-bit takes too."""
    return write_tiny_checkpoint(TinySpec(layer_types="mixed", attention_bias=True), tmp_path / "base")


def _cached_logits(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    cache: Cache,
    ends: list[int],
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits, float32 (batch, tokens, vocabulary), of pieces that end at `ends`, one after another over `cache`."""
    pieces, start = [], 0
    for end in ends:
        inputs = {"input_ids": input_ids[:, start:end]}
        if attention_mask is not None:  # positions as `generate` counts them: from the first token, not the padding
            inputs["attention_mask"] = attention_mask[:, :end]
            inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, start:end]
        with torch.no_grad():
            pieces.append(model(**inputs, use_cache=True, **with_cache(model, cache)).logits.float())
        start = end
    return torch.cat(pieces, dim=1)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_references_agree(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Replaced forwards and zeroed weights give the same logits for any model, plan and batch."""
    spec = data.draw(tiny_specs())
    plan = data.draw(plans(spec.layers))
    input_ids, attention_mask = data.draw(token_batches(spec.vocabulary_size))
    base = write_tiny_checkpoint(spec, tmp_path_factory.mktemp("tiny") / "base")
    identity, zero = (
        reference_logits(
            reference(base, plan.self_attn, plan.mlp, dtype=getattr(torch, spec.dtype)),
            input_ids,
            attention_mask,
        )
        for reference in REFERENCES
    )
    assert (identity.dtype, identity.shape) == (torch.float32, (*input_ids.shape, spec.vocabulary_size))
    context = f"{spec}, {plan}"
    assert_logits_close(identity, zero, dtype=spec.dtype, operation="zero_weight", context=context, mask=attention_mask)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_cached_logits_of_any_model(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """With layer 0's attention pruned, any pieces over any cache give the identity reference's uncached logits."""
    spec = data.draw(tiny_specs())
    plan = data.draw(plans(spec.layers))
    self_attn = {0, *plan.self_attn}
    input_ids, _ = data.draw(token_batches(spec.vocabulary_size, min_tokens=2, left_padding=False))
    tokens = input_ids.shape[1]
    ends = sorted({*data.draw(st.lists(st.integers(1, tokens))), tokens})
    base = write_tiny_checkpoint(spec, tmp_path_factory.mktemp("tiny") / "base")
    model = identity_reference(base, self_attn, plan.mlp, dtype=getattr(torch, spec.dtype))
    expected = reference_logits(model, input_ids)
    caches: dict[str, Cache] = {
        "cached": DynamicCache(config=model.config),
        "static_cache": StaticCache(config=model.config, max_cache_len=tokens + 2),
    }
    for operation, cache in caches.items():
        got = _cached_logits(model, input_ids, cache, ends)
        context = f"{spec}, {plan}, pieces end at {ends}"
        assert_logits_close(got, expected, dtype=spec.dtype, operation=operation, context=context)


@each_kind_of_layers
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_left_padded_decode(tmp_path: Path, layer_types: Any, self_attn: tuple[int, ...], static: bool) -> None:
    """A left-padded row, decoded step by step over a cache, has the uncached logits of the row without padding."""
    base = write_tiny_checkpoint(TinySpec(layer_types=layer_types), tmp_path / "base")
    model = identity_reference(base, self_attn, (1,))
    padding, tokens = 3, IDS.shape[1]
    padded = IDS.clone()
    padded[1, padding:], padded[1, :padding] = IDS[1, : tokens - padding], 0
    mask = torch.ones_like(IDS)
    mask[1, :padding] = 0
    cache = StaticCache(config=model.config, max_cache_len=tokens) if static else DynamicCache(config=model.config)
    got = _cached_logits(model, padded, cache, list(range(4, tokens + 1)), mask)
    unpadded = reference_logits(model, IDS[1:, : tokens - padding])
    assert_logits_close(got[1:, padding:], unpadded, dtype="float32", operation="padding", context="the padded row")
    full = reference_logits(model, IDS[:1])
    assert_logits_close(got[:1], full, dtype="float32", operation="padding", context="the full row")


@each_kind_of_layers
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="greedy"),
        pytest.param({"num_beams": 3}, id="beams"),
        pytest.param({"cache_implementation": "static", "disable_compile": True}, id="static"),
        pytest.param({"use_cache": False}, id="uncached"),
    ],
)
def test_generated_tokens(
    tmp_path: Path, layer_types: Any, self_attn: tuple[int, ...], options: dict[str, Any]
) -> None:
    """`generate` over a left-padded batch gives the tokens of the zero-weight reference, in every mode."""
    base = write_tiny_checkpoint(TinySpec(layer_types=layer_types), tmp_path / "base")
    mask = torch.ones_like(IDS)
    mask[0, :4] = 0
    got, expected = (
        reference(base, self_attn, (1,)).generate(
            IDS, attention_mask=mask, max_new_tokens=8, eos_token_id=None, **options
        )
        for reference in REFERENCES
    )
    assert got.tolist() == expected.tolist()
    assert got.shape == (2, IDS.shape[1] + 8)


def test_poison_in_pruned_modules_is_without_effect(base: Path) -> None:
    """NaN in all weights of the pruned modules reaches no logit, neither uncached nor over a cache."""
    model = identity_reference(base, **PRUNED)
    expected = reference_logits(model, IDS)
    with torch.no_grad():
        for name, indexes in PRUNED.items():
            for index in indexes:
                for parameter in model.get_submodule(f"model.layers.{index}.{name}").parameters():
                    parameter.fill_(torch.nan)
    assert torch.equal(reference_logits(model, IDS), expected)
    cached = _cached_logits(model, IDS, DynamicCache(config=model.config), list(range(1, 10)))
    assert_logits_close(cached, expected, dtype="float32", operation="cached", context="poisoned")


def test_what_pruned_modules_compute_reaches_nothing(base: Path) -> None:
    """Pruned modules run, so that caches fill, but NaN in them changes no logit."""
    model = identity_reference(base, **PRUNED)
    expected = reference_logits(model, IDS)
    layers: Any = model.base_model.layers
    for module in [layers[index].self_attn for index in PRUNED["self_attn"]] + [layers[i].mlp for i in PRUNED["mlp"]]:
        for parameter in module.parameters():
            parameter.data.fill_(torch.nan)
    assert torch.equal(reference_logits(model, IDS), expected)


@pytest.mark.parametrize(
    "device_map",
    [
        pytest.param("auto", id="auto"),
        pytest.param({"": "cpu"}, id="cpu"),
        pytest.param(
            {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
            | {f"model.layers.{index}": ("disk", "cpu")[index % 2] for index in range(4)},
            id="disk",
        ),
    ],
)
def test_device_maps(base: Path, tmp_path: Path, device_map: Any) -> None:
    """Dispatched or offloaded to disk, the identity reference gives the plain load's logits, cached ones too."""
    expected = reference_logits(identity_reference(base, **PRUNED), IDS)
    model = identity_reference(base, **PRUNED, device_map=device_map, offload_folder=tmp_path / "offloaded")
    got = reference_logits(model, IDS)
    assert_logits_close(got, expected, dtype="float32", operation="offload", context="one pass")
    cached = _cached_logits(model, IDS, DynamicCache(config=model.config), list(range(1, 10)))
    assert_logits_close(cached, expected, dtype="float32", operation="cached", context="steps")


# The casts are how 8-bit works; it says so at every layer and every token.
@pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast from:UserWarning")
@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_loads(base: Path, bits: int) -> None:
    """In 8-bit and 4-bit, the reference equals the stock model, quantised alike, with silenced sub-layers."""
    configuration = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    model = identity_reference(base, **PRUNED, quantization_config=configuration, dtype=torch.float32)
    stock = AutoModelForCausalLM.from_pretrained(base, quantization_config=configuration, dtype=torch.float32)

    def silenced(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else output * 0

    for name, indexes in PRUNED.items():
        for index in indexes:
            stock.get_submodule(f"model.layers.{index}.{name}").register_forward_hook(silenced)
    got, expected = reference_logits(model, IDS), reference_logits(stock, IDS)
    assert_logits_close(got, expected, dtype=f"{bits}bit", operation="reference", context="silenced by hooks")
    cached = _cached_logits(model, IDS, DynamicCache(config=model.config), list(range(1, 10)))
    expected = _cached_logits(stock, IDS, DynamicCache(config=stock.config), list(range(1, 10)))
    assert_logits_close(cached, expected, dtype=f"{bits}bit", operation="reference", context="cached steps")


def test_zero_weights_are_for_plain_loads_only(base: Path, tmp_path: Path) -> None:
    """Quantised or offloaded weights are refused."""
    on_disk = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "model.layers": "disk"}
    refused = "the zero-weight reference exists for plain loads only, but this one quantises or offloads weights; "
    for load in (
        {"device_map": {**on_disk, "lm_head": "cpu"}, "offload_folder": tmp_path / "offloaded"},
        {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
        {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)},
    ):
        with pytest.raises(ValueError) as raised:
            zero_weight_reference(base, (0,), (), **load)
        assert str(raised.value) == f"{refused}use the identity reference instead"


each_reference = pytest.mark.parametrize("reference", REFERENCES)


@each_reference
def test_indexes_out_of_range(base: Path, reference: Callable[..., Any]) -> None:
    """A layer that the checkpoint does not have is refused by name and value, a negative one too."""
    with pytest.raises(ValueError, match=r"^self_attn must hold layer indexes in 0 to 3, but got 4$"):
        reference(base, (0, 4), ())
    with pytest.raises(ValueError, match=r"^mlp must hold layer indexes in 0 to 3, but got -1$"):
        reference(base, (), (-1,))


@each_reference
def test_inexact_loads(base: Path, tmp_path: Path, reference: Callable[..., Any]) -> None:
    """A checkpoint with a key too few, which transformers would fill at random, is no base of a reference."""
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError) as raised:
        reference(base, (), ())
    assert str(raised.value) == (
        f"{base} does not fill the stock Qwen3ForCausalLM exactly: missing_keys=['model.layers.1.mlp.up_proj.weight']"
    )


@each_reference
def test_remote_code(base: Path, reference: Callable[..., Any]) -> None:
    """A reference is asked in vain to run the checkpoint's own code."""
    with pytest.raises(ValueError, match=r"^a reference never runs a checkpoint's own code, but got the keyword "):
        reference(base, (), (), trust_remote_code=True)


class CustomConfig(Qwen3Config):
    model_type = "custom_qwen3"


class CustomForCausalLM(Qwen3ForCausalLM):
    config_class = CustomConfig


@each_reference
def test_custom_classes(base: Path, reference: Callable[..., Any]) -> None:
    """A checkpoint that loads as a class from elsewhere than transformers is no base of a reference."""
    AutoConfig.register("custom_qwen3", CustomConfig, exist_ok=True)
    AutoModelForCausalLM.register(CustomConfig, CustomForCausalLM, exist_ok=True)
    config = (base / "config.json").read_text(encoding="utf-8")
    (base / "config.json").write_text(config.replace('"qwen3"', '"custom_qwen3"'), encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        reference(base, (), ())
    assert str(raised.value) == (
        f"a reference needs a class of transformers itself, but {base} loads as "
        f"{__name__}.CustomForCausalLM; is it the unpruned checkpoint?"
    )
