"""What a load costs: seconds and peak memory, base and pruned in turn, each time in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from harness.errors import CannotRun
from harness.models.modes import LoadingMode
from harness.subject.subject import Subject

from .disk import stored_bytes
from .fresh_process import FreshLoads, Load, Which
from .measurement import Measurement, Prediction, Unit

TURN: tuple[Which, Which] = ("base", "pruned")

_SECONDS = (("load", "bare_seconds"), ("load and first pass", "forward_seconds"))
# Of the bare load only what it allocated: how many pages of a mapped file are in memory before they are used depends on
# how they happen to lie in the system's cache.
_MEMORY = (
    ("peak memory, load and first pass", "forward.resident"),
    ("anonymous, load and first pass", "forward.anonymous"),
    ("pages of files, load and first pass", "forward.file_backed"),
    ("anonymous, load", "bare.anonymous"),
    ("GPU memory, load and first pass", "forward.gpu"),
)


def load_costs(
    loads: FreshLoads, subject: Subject, mode: LoadingMode, repeats: int, step: Callable[[str], None]
) -> tuple[list[Measurement], list[str]]:
    """Return the costs of a load in this mode, and notes on what could not be measured.

    Memory is that of the loads with a warm cache. What is predicted are the stored bytes. Raises CannotRun if the base
    or the candidate cannot be loaded.
    """
    stored = stored_bytes(subject)
    seconds: list[Measurement] = []
    memory: list[Measurement] = []
    notes: list[str] = []
    for cold in (False, True):
        cache = "cold" if cold else "warm"
        runs: list[tuple[Load, Load]] = []
        try:
            for _ in range(repeats):
                base, pruned = (_one(loads, subject, mode, which, cold, step) for which in TURN)
                runs.append((base, pruned))
        except CannotRun as error:
            if not cold:
                raise
            notes.append(f"Loads with a cold file cache are not measured: {error}.")
            continue
        seconds += [_cost(f"{name} ({cache})", "s", runs, place, stored) for name, place in _SECONDS]
        if not cold:
            memory = [
                _cost(name, "B", runs, place, stored if place == "forward.resident" else None)
                for name, place in _MEMORY
                if "gpu" not in place or any(load.forward.gpu for run in runs for load in run)
            ]
    return [*seconds, *memory], notes


def _one(
    loads: FreshLoads, subject: Subject, mode: LoadingMode, which: Which, cold: bool, step: Callable[[str], None]
) -> Load:
    step(f"{mode.name}: loading the {which} model, {'cold' if cold else 'warm'} file cache")
    return loads.load(subject, mode, which, cold=cold)


def _cost(
    name: str, unit: Unit, runs: list[tuple[Load, Load]], place: str, prediction: Prediction | None
) -> Measurement:
    value = attrgetter(place)
    return Measurement(
        name,
        unit,
        base=tuple(value(base) for base, _ in runs),
        pruned=tuple(value(pruned) for _, pruned in runs),
        predictions=() if prediction is None else (prediction,),
    )
