"""Faults that a load and a save bring into the files: random weights stored, quantised ones pruned."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import (
    INDEX,
    SINGLE,
    all_tensors,
    config_of,
    edit_config,
    plan_of,
    save_tensors,
    weight_files,
)
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.conditions import all_of, manifest, package, something_pruned
from harness.faults.planting.loading import from_auto, from_own_code, in_4bit, scratch_checkpoint

from .code import RESIDENT
from .config import become_stock
from .weights import keep_pruned_keys


def _save_back(checkpoint: Path, destination: Path) -> None:
    """Load with a class whose skipped modules stay, filled at random, and save; what is no model is copied."""
    with scratch_checkpoint() as scratch:
        edit_foreign(RESIDENT)(checkpoint, scratch)
        from_own_code(scratch).save_pretrained(destination)
        for path in scratch.iterdir():
            is_weights = path.name.endswith(".safetensors") or path.name == INDEX
            if path.is_file() and not is_weights and not (destination / path.name).exists():
                shutil.copyfile(path, destination / path.name)


def _quantise_then_prune(checkpoint: Path, destination: Path) -> None:
    """Quantise the unpruned model, random where the weights are gone, then delete the keys of what is pruned."""
    self_attn, mlp = plan_of(config_of(checkpoint))
    pruned = tuple(
        [f"model.layers.{index}.self_attn." for index in self_attn] + [f"model.layers.{index}.mlp." for index in mlp]
    )
    with scratch_checkpoint() as scratch:
        unpruned, quantised = scratch / "unpruned", scratch / "quantised"
        scratch.mkdir()
        keep_pruned_keys(checkpoint, unpruned)
        edit_config(unpruned, become_stock)
        from_auto(unpruned, **in_4bit()).save_pretrained(quantised)
        tensors = {key: tensor for key, tensor in all_tensors(quantised).items() if not key.startswith(pruned)}
        quantization_config = config_of(quantised)["quantization_config"]

        edit_foreign(RESIDENT)(checkpoint, destination)
        for path in [*weight_files(destination), destination / INDEX]:
            path.unlink(missing_ok=True)
        save_tensors(tensors, destination / SINGLE)
    edit_config(destination, lambda config: config.update(quantization_config=quantization_config))


FAULTS = (
    Fault(
        id="random-weights-saved-back",
        family="keys",
        where="weights",
        symptom="memory",
        description="a class that skips by flags alone was loaded and saved, so the random weights of its skipped "
        "modules are stored",
        requires=something_pruned,
        plant=_save_back,
    ),
    Fault(
        id="prequantised-then-pruned",
        family="quantisation",
        where="weights",
        symptom="error",
        description="a checkpoint that bitsandbytes had quantised was pruned by deleting keys, and its class skips by "
        "flags alone",
        needs=package("bitsandbytes"),
        requires=all_of(something_pruned, manifest),
        plant=_quantise_then_prune,
    ),
)
