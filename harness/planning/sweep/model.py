"""Load one model to look into, stock or pruned by prunecheck, wherever there is room for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer

from harness.errors import CannotRun
from harness.models.memory import available_bytes, model_bytes
from harness.models.modes import LoadingMode
from harness.models.session import first_line, has_tokenizer, no_custom_generate
from harness.reference.models import load_stock
from harness.subject.stock import stock_config, stock_config_object
from harness.system.panics import panics_as_errors
from pruning import PruningError, load_pruned
from pruning.files.source import Source
from pruning.load import hub_kernel
from pruning.plan import layer_count

_SAMPLE: Final = 4096  # bytes at either end of a tensor


def choose_mode(source: Source, place: str | None, dtype: str | None) -> LoadingMode:
    """Return how to load: as asked for, or plain and in the stored dtype, with the layers on the disk if need be.

    Raises CannotRun if that cannot be done on this machine.
    """
    tensors = list(source.tensors())
    if dtype is None:
        wide = sum(tensor.elements for tensor in tensors if tensor.dtype == "F32")
        dtype = "float32" if 2 * wide > sum(tensor.elements for tensor in tensors) else "bfloat16"
    if place is None:
        needed = model_bytes(sum(tensor.elements for tensor in tensors), dtype)
        place = "plain" if needed <= available_bytes() else "disk-all"
    mode = LoadingMode(place, dtype)
    if mode.missing:
        raise CannotRun(f"{mode.name} cannot be loaded: {mode.missing}")
    return mode


def load_model(source: Source, mode: LoadingMode, folder: Path) -> Any:
    """Load a checkpoint in evaluation mode; `folder` is for offloaded weights. No code of the checkpoint runs.

    Raises CannotRun, in one line, for what does not load, CheckpointError for a pruned checkpoint that is not sound.
    """
    if kernel := hub_kernel(source.config):
        raise CannotRun(f"{source.root}: config.json asks for code of a hub repository, {kernel[:100]}: remove it")
    arguments = mode.arguments(layer_count(source.config), source.plan, folder)
    try:
        with no_custom_generate():
            if source.config["model_type"] == source.family.pruned_model_type:
                return load_pruned(source.root, **arguments).eval()
            return load_stock(source.root, use_safetensors=True, **arguments)
    except PruningError:
        raise
    except MemoryError:
        raise CannotRun(f"there is not enough memory to load {source.root}: use --device-map disk-all") from None
    except Exception as error:  # of many kinds, by version and by what is wrong
        raise CannotRun(f"{source.root} does not load as {mode.name}: {first_line(error)}") from None


def load_tokenizer(source: Source) -> Any:
    """Load a checkpoint's tokenizer; raises CannotRun if it has none, or none that loads."""
    if not has_tokenizer(source.root):
        raise CannotRun(f"{source.root} has no tokenizer: put the files of the model's own beside its weights")
    try:
        config = stock_config_object(stock_config(source.config | {"model_type": source.family.model_type}))
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(source.root, config=config, trust_remote_code=False)
    except Exception as error:  # of many kinds, by version and by what is missing
        raise CannotRun(f"{source.root} has no tokenizer that loads: {first_line(error)}") from None


def weights_digest(source: Source) -> str:
    """Return a sha256 of the config, of each tensor's name, dtype and shape, and of the bytes at both its ends.

    Not of every byte: training moves them all, and those of a large model take minutes to read.
    """
    digest = hashlib.sha256(json.dumps(source.config, sort_keys=True).encode())
    for shard in source.shards:
        with shard.path.open("rb") as file:
            for tensor in shard.tensors:
                digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape} ".encode())
                for begin in (tensor.begin, max(tensor.begin, tensor.end - _SAMPLE)):
                    file.seek(begin)
                    digest.update(file.read(min(_SAMPLE, tensor.end - begin)))
    return digest.hexdigest()
