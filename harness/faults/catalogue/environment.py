"""Faults around a sound checkpoint and a right call: other classes, stale copies, files that change, hardware."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    dynamic_module_utils,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_tensors
from harness.faults.planting.code_edits import edit_file
from harness.faults.planting.conditions import all_of, own_code, several_gpus, something_kept, something_pruned
from harness.faults.planting.loading import (
    from_auto,
    from_own_code,
    layers_on_disk,
    plant_and_load,
    scratch_checkpoint,
)

_HELPER_FILE = "per_layer_skip.py"
_READS_NO_PLAN = ("    if per_layer_config is None:\n", "    if True:\n")


class _EarlierConfig(Qwen3Config):
    model_type = "pruned_qwen3"


class _EarlierForCausalLM(Qwen3ForCausalLM):
    config_class = _EarlierConfig


@contextmanager
def _registries_as_they_are() -> Iterator[None]:
    """Undo on exit whatever was registered with the Auto classes."""
    registries = (CONFIG_MAPPING._extra_content, MODEL_FOR_CAUSAL_LM_MAPPING._extra_content)
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)


@contextmanager
def _other_class_registered(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with _registries_as_they_are():
        AutoConfig.register(_EarlierConfig.model_type, _EarlierConfig, exist_ok=True)
        AutoModelForCausalLM.register(_EarlierConfig, _EarlierForCausalLM, exist_ok=True)
        yield from_auto(checkpoint)


@contextmanager
def _stale_code(checkpoint: Path) -> Iterator[PreTrainedModel]:
    """Load an older checkpoint first, in a directory of the same name, whose helper file reads no plan.

    The second load finds the helper module imported already (4.57.6 and 5.0.0, dynamic_module_utils.py,
    `get_class_in_module` reloads the module that defines the class, not those which that one imports).
    """
    with scratch_checkpoint() as scratch:
        older = scratch.parent / "older" / scratch.name
        older.parent.mkdir()
        copy_checkpoint(checkpoint, older)
        edit_file(older / _HELPER_FILE, (_READS_NO_PLAN,))
        copy_checkpoint(checkpoint, scratch)
        from_own_code(older)
        yield from_own_code(scratch)


def _cached_copies_can_be_stale() -> str | None:
    if not hasattr(dynamic_module_utils, "_compute_local_source_files_hash"):
        return None
    return "this transformers keeps copies of remote code apart by a hash of their content; 5.0.0 and 4.57.6 do not"


@contextmanager
def _file_rewritten(checkpoint: Path) -> Iterator[PreTrainedModel]:
    def change(tensors: dict[str, Tensor]) -> None:
        for key in tensors:
            tensors[key] = tensors[key].flip(0)

    with scratch_checkpoint() as scratch:
        copy_checkpoint(checkpoint, scratch)
        folder = scratch.parent / "offload"
        model = from_own_code(scratch, device_map=layers_on_disk(scratch), offload_folder=folder)
        edit_tensors(scratch, change)
        yield model


def _corrupt(model: PreTrainedModel) -> None:
    """Zero half of the final norm, which lies with the last layers, as if half of its bytes had not arrived."""
    weight = model.get_parameter("model.norm.weight")
    with torch.no_grad():
        weight[: len(weight) // 2] = 0


@contextmanager
def _corrupted_on_the_last_gpu(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with plant_and_load(device_map="balanced")(checkpoint) as model:
        _corrupt(model)
        yield model


@contextmanager
def _corrupted_in_memory(checkpoint: Path) -> Iterator[PreTrainedModel]:
    with plant_and_load()(checkpoint) as model:
        _corrupt(model)
        yield model


FAULTS = (
    Fault(
        id="other-class-registered",
        family="class",
        where="environment",
        symptom="first",
        description="something registered a subclass of the stock class for model_type pruned_qwen3, and it is loaded",
        requires=all_of(own_code, something_pruned),
        load=_other_class_registered,
    ),
    Fault(
        id="stale-remote-code",
        family="class",
        where="environment",
        symptom="first",
        met="huggingface/transformers#45632",
        description="a checkpoint in a directory of the same name was loaded before, and a module of its older code "
        "is used again",
        needs=_cached_copies_can_be_stale,
        requires=all_of(own_code, something_pruned),
        load=_stale_code,
    ),
    Fault(
        id="offload-file-rewritten",
        family="offload",
        where="environment",
        symptom="first",
        description="the file of weights is replaced after a load that left the decoder layers on the disk",
        requires=something_kept,
        load=_file_rewritten,
    ),
    Fault(
        id="peer-copy-corruption",
        family="offload",
        where="environment",
        symptom="first",
        met="huggingface/accelerate#4036",
        description="with layers on several GPUs, half of the final norm is zeros on the last one",
        needs=several_gpus,
        load=_corrupted_on_the_last_gpu,
    ),
    Fault(
        id="peer-copy-corruption:simulated",
        family="offload",
        where="environment",
        symptom="first",
        met="huggingface/accelerate#4036",
        description="half of the final norm is zeros in memory, as if its bytes had not arrived; the file is right",
        load=_corrupted_in_memory,
    ),
)
