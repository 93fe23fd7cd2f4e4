"""The fault library: named mutations that turn a sound pruned checkpoint, or its load, into a faulty one.

Use it to see whether your own pipeline, or one of our checks, notices:

    from harness.faults import FAULTS, plant

    plant("plan-inverted-or-shifted", Path("sound"), Path("faulty"))
    with FAULTS["float16-overflow"].load(Path("sound")) as model:
        ...

The sound variants are the other side: unusual checkpoints and loads that a check must pass.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError

from harness.errors import CannotRun
from harness.faults.catalogue.cache import FAULTS as _CACHE_FAULTS
from harness.faults.catalogue.code import FAULTS as _CODE_FAULTS
from harness.faults.catalogue.config import FAULTS as _CONFIG_FAULTS
from harness.faults.catalogue.environment import FAULTS as _ENVIRONMENT_FAULTS
from harness.faults.catalogue.index import FAULTS as _INDEX_FAULTS
from harness.faults.catalogue.load import FAULTS as _LOAD_FAULTS
from harness.faults.catalogue.saved import FAULTS as _SAVED_FAULTS
from harness.faults.catalogue.sound import SOUND_VARIANTS as _SOUND_VARIANTS
from harness.faults.catalogue.tokenizer import FAULTS as _TOKENIZER_FAULTS
from harness.faults.catalogue.weights import FAULTS as _WEIGHT_FAULTS
from harness.faults.planting.modeling_files import foreign_checkpoint

from .fault import Fault, SoundVariant

__all__ = ["FAULTS", "SOUND_VARIANTS", "Fault", "SoundVariant", "foreign_checkpoint", "plant"]

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.id: fault
        for fault in (
            *_CONFIG_FAULTS,
            *_WEIGHT_FAULTS,
            *_SAVED_FAULTS,
            *_INDEX_FAULTS,
            *_CODE_FAULTS,
            *_CACHE_FAULTS,
            *_LOAD_FAULTS,
            *_ENVIRONMENT_FAULTS,
            *_TOKENIZER_FAULTS,
        )
    }
)
SOUND_VARIANTS: Mapping[str, SoundVariant] = MappingProxyType({variant.id: variant for variant in _SOUND_VARIANTS})


def plant(fault_id: str, checkpoint: Path, destination: Path) -> None:
    """Write a faulty copy of the sound pruned `checkpoint` into `destination`, a directory that does not exist.

    What `fault.needs` says of this environment is no obstacle: the files can be planted anywhere.

    Raises CannotRun, in one line, for an unknown fault, one that is not planted in files, a destination that exists,
    and a checkpoint that does not meet what the fault requires. Then, and on any other error, nothing is left behind.
    """
    fault = FAULTS.get(fault_id)
    if fault is None:
        raise CannotRun(f"there is no fault {fault_id!r}; there are {', '.join(sorted(FAULTS))}")
    if fault.plant is None:
        raise CannotRun(f"{fault_id} is not planted in files, but in the {fault.where}: use FAULTS[{fault_id!r}].load")
    if not (checkpoint / "config.json").is_file():
        raise CannotRun(f"{checkpoint} is no checkpoint: it has no config.json")
    if destination.exists():
        raise CannotRun(f"{destination} exists: name a directory that does not")
    try:
        if reason := fault.requires(checkpoint):
            raise CannotRun(f"{fault_id} cannot be planted: {reason}")
        fault.plant(checkpoint, destination)
    except SafetensorError as error:
        shutil.rmtree(destination, ignore_errors=True)
        raise CannotRun(f"{fault_id} cannot be planted: a file of weights in {checkpoint}: {error}") from None
    except BaseException:
        shutil.rmtree(destination, ignore_errors=True)
        raise
