"""Faults in how a sound checkpoint is loaded or called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import (
    Json,
    config_of,
    copy_checkpoint,
    edit_config,
    edit_tensors,
    plan_of,
)
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.conditions import (
    all_of,
    attention_after_pruned_first,
    kept_attention,
    kept_mlp,
    own_code,
    package,
    pruned_mlp,
    something_pruned,
    transformers_from,
)
from harness.faults.planting.loading import (
    from_auto,
    from_own_code,
    in_4bit,
    layers_on_disk,
    plant_and_load,
    scratch_checkpoint,
)
from harness.faults.planting.modeling_files import foreign_checkpoint

from .cache import LENGTH_LOST
from .code import RESIDENT
from .config import become_stock

# What moves weights of about one out of the range of float16, whose largest number is 65504, yet keeps them in it.
_SCALE = 2.0**15


@contextmanager
def _without_trust(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with scratch_checkpoint() as scratch:
        foreign_checkpoint(checkpoint, scratch)
        yield from_auto(scratch)


@contextmanager
def _stock_in_4bit(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with scratch_checkpoint() as scratch:
        copy_checkpoint(checkpoint, scratch)
        edit_config(scratch, become_stock)
        yield from_auto(scratch, **in_4bit())


def _truncate_embedding(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)

    def change(tensors: dict[str, Tensor]) -> None:
        if "model.embed_tokens.weight" in tensors:
            tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-1].clone()

    edit_tensors(destination, change)


def scale_activations(checkpoint: Path, destination: Path) -> None:
    """Scale the residual stream, and q and k before their norms, by 2**15: the same function, to the bit.

    Trained bfloat16 models leave float16's range in a few channels; tiny random ones do not come near it. The
    norms' epsilon is scaled with the squares, so each norm computes what it did; powers of two round nothing.
    """
    copy_checkpoint(checkpoint, destination)
    tied = config_of(destination).get("tie_word_embeddings", False)
    scaled = tuple(
        f"{module}.{kind}"
        for module in ("embed_tokens", "o_proj", "down_proj", "q_proj", "k_proj")
        for kind in ("weight", "bias")
    )

    def change(tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            if key.endswith(scaled):
                tensors[key] = tensor * _SCALE
            elif tied and key == "model.norm.weight":  # the head is scaled with the embedding
                tensors[key] = tensor / _SCALE

    def change_config(config: Json) -> None:
        config["rms_norm_eps"] *= _SCALE**2

    edit_tensors(destination, change)
    edit_config(destination, change_config)


@contextmanager
def _offloaded(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with scratch_checkpoint() as scratch:
        edit_foreign(RESIDENT)(checkpoint, scratch)
        folder = scratch.parent / "offload"
        yield from_own_code(scratch, device_map=layers_on_disk(scratch), offload_folder=folder)


@contextmanager
def _mask_dropped(checkpoint: Path) -> Iterator[PreTrainedModel]:
    def drop_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # Positions would betray the padding: transformers takes them for packed sequences where there is no mask.
        return args, kwargs | {"attention_mask": None, "position_ids": None}

    with plant_and_load()(checkpoint) as model:
        model.register_forward_pre_hook(drop_mask, with_kwargs=True)
        yield model


def _add_adapter(model: PreTrainedModel, target: str) -> PreTrainedModel:
    """Attach a LoRA adapter with random weights, as if it were trained, to one linear module."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    peft_model: Any = get_peft_model(model, LoraConfig(r=4, target_modules=[target], init_lora_weights=False))
    adapted: PreTrainedModel = peft_model.base_model.model.eval()
    return adapted


@contextmanager
def _adapter_on_another_layer(checkpoint: Path) -> Iterator[PreTrainedModel]:
    config = config_of(checkpoint)
    kept = min(set(range(config["num_hidden_layers"])) - plan_of(config)[1])
    with plant_and_load()(checkpoint) as model:
        yield _add_adapter(model, f"model.layers.{kept}.mlp.up_proj")


@contextmanager
def _adapter_of_the_base(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with plant_and_load()(checkpoint) as model:
        yield _add_adapter(model, "up_proj")


_LAYER_0 = "a pruned self_attn of layer 0 leaves the cache alone, which answers for its length from there; it shows "

FAULTS = (
    Fault(
        id="trust-remote-code-omitted",
        family="class",
        where="load",
        symptom="first",
        description="a checkpoint with code of its own and model_type qwen3 is loaded without trust_remote_code, so "
        "the stock class silently wins",
        requires=something_pruned,
        load=_without_trust,
    ),
    Fault(
        id="layer-0-attention-left-padding",
        family="cache",
        where="load",
        symptom="decode",
        met="huggingface/transformers#47901",
        description=f"{_LAYER_0}under left-padded generate",
        requires=attention_after_pruned_first,
        load=plant_and_load(LENGTH_LOST),
    ),
    Fault(
        id="layer-0-attention-static-cache",
        family="cache",
        where="load",
        symptom="decode",
        met="huggingface/transformers#48178",
        description=f'{_LAYER_0}with cache_implementation="static"',
        requires=attention_after_pruned_first,
        load=plant_and_load(LENGTH_LOST),
    ),
    Fault(
        id="layer-0-attention-chunked-prefill",
        family="cache",
        where="load",
        symptom="decode",
        description=f"{_LAYER_0}when a prompt goes in in pieces, or a cache is used again",
        requires=attention_after_pruned_first,
        load=plant_and_load(LENGTH_LOST),
    ),
    Fault(
        id="broken-keys-by-mismatch",
        family="keys",
        where="load",
        symptom="first",
        description="the stored embedding lacks its last row, and ignore_mismatched_sizes=True has all of it random",
        load=plant_and_load(_truncate_embedding, ignore_mismatched_sizes=True),
    ),
    Fault(
        id="float16-overflow",
        family="precision",
        where="load",
        symptom="first, NaN",
        met="QwenLM/Qwen3#761",
        description="dtype=float16 for a model whose activations, scaled by 2**15 without any other effect, exceed it",
        load=plant_and_load(scale_activations, dtype=torch.float16),
    ),
    Fault(
        id="quantised-but-float-left",
        family="quantisation",
        where="load",
        symptom="memory",
        description="in a 4-bit load, a class that skips by flags alone keeps its skipped modules, filled at random, "
        "in float",
        needs=package("bitsandbytes", transformers_from("5.0.0", "earlier ones raise when a quantised key is missing")),
        requires=something_pruned,
        load=plant_and_load(edit_foreign(RESIDENT), **in_4bit()),
    ),
    Fault(
        id="stock-class-quantised",
        family="quantisation",
        where="load",
        symptom="error",
        description="the stock class is loaded in 4-bit, where nothing quantises the weights that are not stored",
        needs=package("bitsandbytes"),
        requires=something_pruned,
        load=_stock_in_4bit,
    ),
    Fault(
        id="offloaded-save",
        family="offload",
        where="load",
        symptom="error, in save_pretrained",
        met="huggingface/transformers#47333",
        description="a class that skips by flags alone is loaded with its layers on the disk, where what was pruned "
        "is not; save_pretrained looks for it there",
        requires=something_pruned,
        load=_offloaded,
    ),
    Fault(
        id="right-padding",
        family="padding",
        where="load",
        symptom="batch only",
        description="the attention mask does not reach the model, so padding is read as text",
        requires=kept_attention,
        load=_mask_dropped,
    ),
    Fault(
        id="adapter-on-pruned",
        family="adapter",
        where="load",
        symptom="drift",
        description="a LoRA adapter that was trained for another layer, counted before layers were renumbered, is "
        "attached to a kept mlp",
        needs=package("peft"),
        requires=kept_mlp,
        load=_adapter_on_another_layer,
    ),
    Fault(
        id="adapter-on-pruned:skipped",
        family="adapter",
        where="load",
        symptom="drift",
        description="a LoRA adapter that was trained on the unpruned model is attached to prunecheck's own class, "
        "where its part for a pruned mlp has no place",
        needs=package("peft"),
        requires=all_of(own_code, pruned_mlp, kept_mlp),
        load=_adapter_of_the_base,
    ),
)
