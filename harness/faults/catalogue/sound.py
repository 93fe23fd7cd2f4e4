"""Sound variants: unusual checkpoints and loads in which nothing is wrong. A check that minds one is wrong itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from harness.faults.fault import Requires, SoundVariant
from harness.faults.planting.checkpoint_files import (
    INDEX,
    SINGLE,
    Json,
    all_tensors,
    config_of,
    copy_checkpoint,
    edit_json,
    edit_tensors,
    plan_of,
    save_tensors,
    weight_files,
    write_json,
)
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.conditions import holds, something_pruned, tied, untied
from harness.faults.planting.loading import from_own_code, layers_on_disk, plant_and_load, scratch_checkpoint
from harness.faults.planting.modeling_files import foreign_checkpoint
from harness.subject.stock import stock_config, stock_config_object

from .code import RESIDENT

GENERATION = "generation_config.json"


def _without_weights(checkpoint: Path, destination: Path) -> dict[str, Tensor]:
    """Copy a checkpoint without its weights, and return those."""
    copy_checkpoint(checkpoint, destination)
    tensors = all_tensors(checkpoint)
    for path in [*weight_files(destination), destination / INDEX]:
        path.unlink(missing_ok=True)
    return tensors


def _one_file(checkpoint: Path, destination: Path) -> None:
    save_tensors(_without_weights(checkpoint, destination), destination / SINGLE)


def _two_shards(checkpoint: Path, destination: Path) -> None:
    """Write every other tensor into each shard, and an index without metadata that names the kept keys only."""
    tensors = _without_weights(checkpoint, destination)
    keys = sorted(tensors)
    weight_map = {}
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        shard = {key: tensors[key] for key in keys[number - 1 :: 2]}
        save_tensors(shard, destination / name)
        weight_map.update(dict.fromkeys(shard, name))
    write_json(destination / INDEX, {"metadata": {}, "weight_map": weight_map})


def _prefix_stripped(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)

    def change(tensors: dict[str, Tensor]) -> None:
        renamed = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    edit_tensors(destination, change)


def _no_metadata(checkpoint: Path, destination: Path) -> None:
    save_file(_without_weights(checkpoint, destination), destination / SINGLE)


def _tokenizer_saved_again(checkpoint: Path, destination: Path) -> None:
    """Write the tokenizer as this release of transformers does, whatever wrote it before."""
    copy_checkpoint(checkpoint, destination)
    config = stock_config_object(stock_config(config_of(checkpoint)))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, config=config, trust_remote_code=False)
    tokenizer.save_pretrained(destination)


def _generation_defaults_left_out(checkpoint: Path, destination: Path) -> None:
    """Leave out an entry that says what none says, add another, and write the end of text as a list."""
    copy_checkpoint(checkpoint, destination)

    def change(settings: Json) -> None:
        if not settings.get("do_sample"):
            settings.pop("do_sample", None)
        settings.setdefault("repetition_penalty", 1.0)
        if isinstance(settings.get("eos_token_id"), int):
            settings["eos_token_id"] = [settings["eos_token_id"]]

    edit_json(destination / GENERATION, change)


@contextmanager
def _on_disk(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with scratch_checkpoint() as scratch:
        copy_checkpoint(checkpoint, scratch)
        folder = scratch.parent / "offload"
        yield from_own_code(scratch, device_map=layers_on_disk(scratch), offload_folder=folder)


@contextmanager
def _gradient_checkpointing(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with plant_and_load()(checkpoint) as model:
        model.gradient_checkpointing_enable()
        yield model


@contextmanager
def _poisoned(checkpoint: Path) -> Iterator[PreTrainedModel]:
    """Load a class that skips by flags alone, whose skipped modules stay, and fill those with NaN."""
    self_attn, mlp = plan_of(config_of(checkpoint))
    pruned = [f"model.layers.{index}.self_attn" for index in self_attn]
    pruned += [f"model.layers.{index}.mlp" for index in mlp]
    with plant_and_load(edit_foreign(RESIDENT))(checkpoint) as model:
        for name in pruned:
            for parameter in model.get_submodule(name).parameters():
                parameter.data.fill_(torch.nan)
        yield model


@contextmanager
def _with_attentions(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with plant_and_load(attn_implementation="eager")(checkpoint) as model:
        model.config.output_attentions = True
        yield model


def _only_where(holds: Callable[[Json], bool], expected: str) -> Requires:
    """Require something of the config."""

    def requires(checkpoint: Path) -> str | None:
        return None if holds(config_of(checkpoint)) else f"{checkpoint} is another kind of checkpoint: {expected}"

    return requires


def _sublayers(config: Json) -> int:
    return sum(map(len, plan_of(config)))


def _whole_layers(config: Json) -> set[int]:
    self_attn, mlp = plan_of(config)
    return self_attn & mlp


def _as_it_is(name: str, description: str, requires: Requires) -> SoundVariant:
    """Return a variant that is a plan or a model of a certain kind, hence a plain copy where it is of that kind."""
    return SoundVariant(id=name, description=description, requires=requires, plant=copy_checkpoint)


SOUND_VARIANTS = (
    SoundVariant(id="one-file", description="all tensors are in model.safetensors", plant=_one_file),
    SoundVariant(
        id="sharded",
        description="the tensors are in two shards, and the index names the kept keys only",
        plant=_two_shards,
    ),
    SoundVariant(
        id="prefix-stripped",
        description="the keys lack the prefix model., as in the state dict of the base model",
        requires=tied,
        plant=_prefix_stripped,
    ),
    SoundVariant(id="no-format-metadata", description="the safetensors header has no metadata", plant=_no_metadata),
    SoundVariant(
        id="foreign-flags",
        description="a third party's code skips by lists of its own in config.json, model_type qwen3",
        plant=foreign_checkpoint,
    ),
    SoundVariant(
        id="tokenizer-saved-again",
        description="the tokenizer was loaded and saved by transformers, which writes it in another form",
        requires=holds("tokenizer.json", "which the variant saves again"),
        plant=_tokenizer_saved_again,
    ),
    SoundVariant(
        id="generation-defaults-left-out",
        description="generation_config.json leaves out what is the default, and lists its one end token",
        requires=holds(GENERATION, "which the variant changes"),
        plant=_generation_defaults_left_out,
    ),
    SoundVariant(id="disk-offload", description="every decoder layer is on the disk", load=_on_disk),
    SoundVariant(id="gradient-checkpointing", description="gradient checkpointing is on", load=_gradient_checkpointing),
    SoundVariant(
        id="pruned-modules-poisoned",
        description="a third party's class keeps its skipped modules, and they are filled with NaN",
        requires=something_pruned,
        load=_poisoned,
    ),
    SoundVariant(
        id="fewer-attentions",
        description="attentions are returned, one for each kept self_attn, which is fewer than layers",
        requires=_only_where(lambda config: bool(plan_of(config)[0]), "self_attn of some layer is pruned"),
        load=_with_attentions,
    ),
    SoundVariant(id="float32", description="loaded as float32", load=plant_and_load(dtype=torch.float32)),
    SoundVariant(id="bfloat16", description="loaded as bfloat16", load=plant_and_load(dtype=torch.bfloat16)),
    SoundVariant(id="eager", description="attention runs eagerly", load=plant_and_load(attn_implementation="eager")),
    SoundVariant(id="sdpa", description="attention runs by sdpa", load=plant_and_load(attn_implementation="sdpa")),
    _as_it_is(
        "first-attention-pruned",
        "the self_attn of layer 0 is pruned, and the cache is right",
        _only_where(lambda config: 0 in plan_of(config)[0], "self_attn of layer 0 is pruned"),
    ),
    _as_it_is(
        "nothing-pruned", "nothing is pruned", _only_where(lambda config: not _sublayers(config), "nothing is pruned")
    ),
    _as_it_is(
        "everything-pruned",
        "every self_attn and every mlp is pruned",
        _only_where(lambda config: _sublayers(config) == 2 * config["num_hidden_layers"], "everything is pruned"),
    ),
    _as_it_is(
        "whole-layer-pruned",
        "self_attn and mlp of one layer are pruned",
        _only_where(lambda config: bool(_whole_layers(config)), "a whole layer is pruned"),
    ),
    _as_it_is("tied-head", "the head is the embedding", tied),
    _as_it_is("untied-head", "the head is stored apart from the embedding", untied),
    _as_it_is(
        "mixed-attention",
        "sliding and full attention are mixed",
        _only_where(lambda config: len(set(config.get("layer_types") or ())) > 1, "two kinds of attention are mixed"),
    ),
)
