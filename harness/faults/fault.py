"""What a fault and a sound variant are: records of a name, a meaning, and a mutation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Needs = Callable[[], str | None]
Requires = Callable[[Path], str | None]
Plant = Callable[[Path, Path], None]
Load = Callable[[Path], "AbstractContextManager[PreTrainedModel]"]


def runs_anywhere() -> str | None:
    """Need nothing of the environment."""
    return None


def any_checkpoint(checkpoint: Path) -> str | None:
    """Require nothing of the checkpoint but that it is a sound pruned one."""
    return None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which a pruned model goes wrong, as a mutation of a sound pruned checkpoint or of its load.

    `id` names it; what follows a colon names another form of the same fault. `family` is what a diagnosis must name,
    `where` what is mutated (weights, config, index, code, load, environment, tokenizer), `symptom` what is seen,
    `met` the issue where it was met in the wild, as owner/name#number, and `description` says the mutation.

    `needs()` says why the fault cannot be shown in this environment, `requires(checkpoint)` why it cannot be planted
    in this checkpoint; None where it can.

    One of the last two is there. `plant(checkpoint, destination)` writes a faulty checkpoint into a directory that
    does not exist. `load(checkpoint)` is a context manager that yields a model wrongly loaded from the sound pruned
    checkpoint, or raises as the wrong call does; on exit it undoes whatever it did to the environment.
    """

    id: str
    family: str
    where: str
    symptom: str
    met: str | None = None
    description: str
    needs: Needs = runs_anywhere
    requires: Requires = any_checkpoint
    plant: Plant | None = None
    load: Load | None = None


@dataclass(frozen=True, kw_only=True)
class SoundVariant:
    """An unusual checkpoint, or load, that is sound and must pass every check; the fields are those of `Fault`."""

    id: str
    description: str
    needs: Needs = runs_anywhere
    requires: Requires = any_checkpoint
    plant: Plant | None = None
    load: Load | None = None
