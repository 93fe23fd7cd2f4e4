"""The options that the command line and the pytest suite share, from the text that a user types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from harness.errors import CannotRun
from pruning import PrunePlan

from .modes import DTYPES, PLACES, QUANTISATIONS

_LARGEST: Final = 10**9

# What users of transformers call these places.
_PLACES_BY_OTHER_NAMES: Final = {
    "none": ("plain",), "cpu": ("plain",), "disk": ("disk-beside", "disk-inside"), "cuda": ("gpu",),
}  # fmt: skip
# One place alone: all layers on the disk.
_ONE_PLACE: Final = {**_PLACES_BY_OTHER_NAMES, "disk": ("disk-all",)}


def judging_options(
    *, plan: str | Path | None, device_map: str | None, dtype: str | None, quantisation: str | None
) -> dict[str, Any]:
    """Return keyword arguments of `check_checkpoint` from options as typed; None stands for everything.

    Raises CannotRun for an unknown name, PlanError for a plan file that is none.
    """
    return {
        "plan": None if plan is None else PrunePlan.from_file(plan),
        "device_map": chosen_names("--device-map", device_map, PLACES, _PLACES_BY_OTHER_NAMES, ("disk-all",)),
        "dtype": chosen_names("--dtype", dtype, DTYPES),
        "quantisation": chosen_names("--quantisation", quantisation, QUANTISATIONS, {"none": ()}),
    }


def worker_count(text: str) -> int:
    """Return how many processes `-n` asks for: a number from 1 on, or "auto" for one a CPU; raises CannotRun."""
    if text == "auto":
        return os.cpu_count() or 1
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise CannotRun(f"-n {text} is no number of processes: give one from 1 on, or auto")
    return int(text)


def benchmark_options(*, device_map: str, dtype: str | None, quantisation: str) -> dict[str, Any]:
    """Return keyword arguments of `benchmark_checkpoint` from options as typed; no dtype stands for the stored one.

    Raises CannotRun for an unknown name.
    """
    return {
        "device_map": chosen_names("--device-map", device_map, PLACES, _PLACES_BY_OTHER_NAMES, ("disk-all",)),
        "dtype": None if dtype is None else chosen_names("--dtype", dtype, DTYPES, {"none": ()}),
        "quantisation": chosen_names("--quantisation", quantisation, QUANTISATIONS, {"none": ()}),
    }


def one_way_of_loading(*, device_map: str | None, dtype: str | None) -> dict[str, Any]:
    """Return a place and a dtype, None for what was not typed; raises CannotRun for unknown names and for several."""
    options: dict[str, Any] = {}
    for name, text, chosen in (
        ("device_map", device_map, chosen_names("--device-map", device_map, PLACES, _ONE_PLACE, ("disk-all",))),
        ("dtype", dtype, chosen_names("--dtype", dtype, DTYPES)),
    ):
        if text is not None and len(chosen) != 1:
            raise CannotRun(f"--{name.replace('_', '-')} {text} is not one way of loading: name one")
        options[name] = chosen[0] if text is not None else None
    return options


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list as typed, such as `1,4`, each once; raises CannotRun for what is none from 1 on."""
    numbers = []
    for part in text.split(","):
        if not part.strip().isascii() or not part.strip().isdigit() or not 1 <= int(part) < _LARGEST:
            raise CannotRun(f"{option} {text} is no list of whole numbers from 1 on: write, for one, 1,4")
        numbers.append(int(part))
    return tuple(dict.fromkeys(numbers))


def chosen_names(
    option: str,
    text: str | None,
    known: tuple[str, ...],
    other_names: dict[str, tuple[str, ...]] | None = None,
    on_demand: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Return the names of a list as typed, each once, `known` for None; raises CannotRun for an unknown one.

    `other_names` stand for several known ones; names `on_demand` are known, and none of those that None stands for.
    """
    if text is None:
        return known
    chosen: list[str] = []
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if name in (other_names or {}):
            chosen.extend((other_names or {})[name])
        elif name in known or name in on_demand:
            chosen.append(name)
        else:
            names = ", ".join((*known, *on_demand, *(other_names or {})))
            raise CannotRun(f"{option} {name} is unknown: choose among {names}, several separated by commas")
    return tuple(dict.fromkeys(chosen))
