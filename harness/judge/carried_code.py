"""Is the code that a checkpoint carries at fault? What failed is judged again with the present code in its place.

Code of an earlier release of prunecheck can be wrong on a later release of transformers. That it is outdated says
little: it may be right here. So it is at fault for what passes as soon as it is replaced, and for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.checks.check import Check, fault, listed
from harness.models.modes import LoadingMode
from harness.models.parts import unwrapped
from harness.report.outcomes import FoundFault
from harness.subject.checkpoint_code import read_code
from harness.subject.stored import CONFIG_FILE
from harness.subject.subject import Subject
from harness.system.scratch import scratch_folder
from pruning import __version__
from pruning.families import FAMILIES, Family

from .runner import Judged, Progress, run_checks

Found = Mapping[str, tuple[FoundFault, ...]]


def told_apart(
    subject: Subject,
    chosen: Sequence[Check],
    judged: Judged,
    memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[FoundFault, ...], Judged]:
    """Return the fault of the carried code, if it is at fault, and what was judged less the faults that it explains.

    `judged` is what the `chosen` checks came to. Those that load the model and failed run once more. Raises
    RuntimeError if one of them crashes then.
    """
    failed = [check for check in chosen if check.mode is not None and check.name in judged.faults]
    family = family_of_outdated_code(subject)
    if not failed or family is None:
        return (), judged
    with _with_present_code(subject, family) as candidate:
        if candidate is None:
            return (), judged
        again = run_checks(candidate, failed, memory=memory, progress=progress)
    for record in again.records:
        if record.outcome == "error":  # then this decides nothing, and is a crash of the diagnosis
            raise RuntimeError(f"{record.name}, with the present code: {record.reason}\n{record.traceback}")
    passed = {record.name for record in again.records if record.outcome == "passed"}
    left = {name: again.faults.get(name, faults) for name, faults in judged.faults.items() if name not in passed}
    # Of a load alone, since why it fails is never chance: what else is wrong may show only once the code is right.
    otherwise = {
        name for name in left if name.endswith(".load") and _ids(left[name]).isdisjoint(_ids(judged.faults[name]))
    }
    if not passed | otherwise:
        return (), judged
    return (_carried_code_is_wrong(subject, passed | otherwise, judged.faults),), replace(judged, faults=left)


def told_apart_of_model(
    model: Any, subject: Subject, chosen: Sequence[Check], judged: Judged
) -> tuple[tuple[FoundFault, ...], Judged]:
    """Do the same for a model that was loaded by other code: in its place a fresh, plain load is judged.

    What is wrong with the model alone, and with no fresh load, is not the code's doing.
    """
    is_built_of_it = type(unwrapped(model)).__module__.startswith("transformers_modules.")
    failed = [(check, check.mode) for check in chosen if check.name in judged.faults]
    fresh = {
        replace(check, mode=LoadingMode("plain", mode.precision)): check.name
        for check, mode in failed
        if mode is not None
    }
    if not is_built_of_it or not fresh or family_of_outdated_code(subject) is None:
        return (), judged
    alone = run_checks(subject, list(fresh))
    carried, left = told_apart(subject, list(fresh), alone)
    explained = {given for check, given in fresh.items() if check.name in alone.faults.keys() - left.faults.keys()}
    faults = {name: found for name, found in judged.faults.items() if name not in explained}
    return carried, replace(judged, faults=faults)


def _ids(faults: Sequence[FoundFault]) -> set[str]:
    return {fault.id for fault in faults}


def _carried_code_is_wrong(subject: Subject, explained: set[str], found: Found) -> FoundFault:
    first = next(faults[0] for name, faults in found.items() if name in explained)
    return fault(
        "code", "carried-code-is-wrong",
        f"the code that this checkpoint carries, of prunecheck {subject.code.released}, is wrong on transformers "
        f"{version('transformers')}",
        f"with the code of prunecheck {__version__} in its place {len(explained)} failed check(s) pass, or fail for "
        f"another reason: {listed(explained)}",
        f"with the code that it carries: {first.cause}", *first.evidence[:1],
        remedy=f"Put the present code in its place: prunecheck refresh {subject.root}",
    )  # fmt: skip


def family_of_outdated_code(subject: Subject) -> Family | None:
    """Return the family of a checkpoint whose code is of releases of prunecheck, but not the present code; or None."""
    files = subject.code.released_files
    model_type = (subject.stored.config or {}).get("model_type")
    for family in FAMILIES:
        if files is not None and family.pruned_model_type == model_type:
            present = family.code_files()
            is_present = all((subject.root / name).read_bytes() == present.get(name) for name in files)
            return None if is_present else family
    return None


@contextmanager
def _with_present_code(subject: Subject, family: Family) -> Iterator[Subject | None]:
    """Yield the same checkpoint as `refresh` would leave it, of links; None where there is no place for it."""
    config = {**(subject.stored.config or {}), "auto_map": family.auto_map}
    with scratch_folder() as scratch:
        # transformers names the modules of a checkpoint's code after its directory, and keeps them in memory.
        directory = scratch / "with_present_code"
        try:
            _write(subject.root, directory, {**family.code_files(), CONFIG_FILE: json.dumps(config).encode()})
        except OSError:  # no links on that file system, or no room
            yield None
            return
        stored = replace(subject.stored, root=directory, config=config)
        yield replace(subject, stored=stored, code=read_code(directory, config), findings=[], memory={})


def _write(root: Path, directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for path in root.iterdir():
        if path.suffix != ".py" and path.name not in files:
            (directory / path.name).symlink_to(path.resolve())
    for name, content in files.items():
        (directory / name).write_bytes(content)
