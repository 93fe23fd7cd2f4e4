"""Load a checkpoint by the code that it carries, and leave no trace of having done so."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils.hub import HF_MODULES_CACHE

from harness.faults.fault import Load, Plant

from .checkpoint_files import config_of, copy_checkpoint

_DYNAMIC_MODULES = "transformers_modules"  # the package that remote code is imported as


def from_own_code(checkpoint: Path, **from_pretrained_kwargs: Any) -> PreTrainedModel:
    """Load the model by the class that the checkpoint's `auto_map` names, in evaluation mode.

    Whatever else is registered for its model type stays out of it: in later 5.x the Auto classes would prefer that
    (5.23.0, models/auto/auto_factory.py). The dtype is the checkpoint's unless `from_pretrained_kwargs` say otherwise.
    """
    reference = config_of(checkpoint)["auto_map"]["AutoModelForCausalLM"]
    model_class: Any = get_class_from_dynamic_module(reference, str(checkpoint))
    model: PreTrainedModel = model_class.from_pretrained(checkpoint, **{"dtype": "auto", **from_pretrained_kwargs})
    model.eval()
    return model


def from_auto(checkpoint: Path, **from_pretrained_kwargs: Any) -> PreTrainedModel:
    """Load the model as `AutoModelForCausalLM` does without `trust_remote_code`, in evaluation mode."""
    # Any: how precisely the loader is typed differs between the supported versions of transformers.
    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, **{"dtype": "auto", **from_pretrained_kwargs})
    model: PreTrainedModel = loaded.eval()
    return model


def plant_and_load(plant: Plant = copy_checkpoint, **from_pretrained_kwargs: Any) -> Load:
    """Load a planted copy, by default a plain one, by its own code with these arguments."""

    @contextmanager
    def load(checkpoint: Path) -> Iterator[PreTrainedModel]:
        with scratch_checkpoint() as scratch:
            plant(checkpoint, scratch)
            yield from_own_code(scratch, **from_pretrained_kwargs)

    return load


@contextmanager
def scratch_checkpoint() -> Iterator[Path]:
    """Yield a path for a checkpoint; on exit it is gone, and so is all that transformers copied and imported from it.

    The last part of the path is unique: transformers names the modules of remote code after it.
    """
    with tempfile.TemporaryDirectory(prefix="fault_") as directory:
        path = Path(directory) / Path(directory).name
        try:
            yield path
        finally:
            forget_modules(path.name)


def forget_modules(name: str) -> None:
    """Remove what transformers keeps of the remote code of the directories called `name`."""
    package = f"{_DYNAMIC_MODULES}.{name}"
    for module in [module for module in sys.modules if module == package or module.startswith(f"{package}.")]:
        del sys.modules[module]
    shutil.rmtree(Path(HF_MODULES_CACHE) / _DYNAMIC_MODULES / name, ignore_errors=True)


def layers_on_disk(checkpoint: Path) -> dict[str, str]:
    """Return a device map that leaves every decoder layer on the disk."""
    device_map = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
    layers = range(config_of(checkpoint)["num_hidden_layers"])
    return device_map | dict.fromkeys((f"model.layers.{index}" for index in layers), "disk")


def in_4bit() -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a 4-bit load by bitsandbytes."""
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")}
