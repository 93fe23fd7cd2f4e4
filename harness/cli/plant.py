"""The command `prunecheck plant`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import CannotRun


def plant(
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="The fault's name, as --list shows it.")] = "",
    checkpoint: Annotated[Path | None, typer.Argument(metavar="CKPT", help="A sound pruned checkpoint.")] = None,
    destination: Annotated[Path | None, typer.Argument(metavar="DST", help="The directory to write.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show every fault, and what it does.")] = False,
) -> None:
    """Write a faulty copy of the sound checkpoint CKPT to DST.

    It is for tests of what should find the fault.
    """
    from harness.system.requirements import require_libraries

    require_libraries()

    from harness.faults import FAULTS
    from harness.faults import plant as plant_fault
    from harness.report.terminal import pairs, stdout_console

    if show:
        console = stdout_console()
        if console.is_terminal:
            rows = ((each.id, f"{each.family}, {each.where}: {each.description}") for each in FAULTS.values())
            console.print(pairs(*rows))
            return
        for each in FAULTS.values():  # one line each, for grep
            met = "" if each.met is None else f" (met in {each.met})"
            print(f"{each.id:45} {each.family:13} {each.where:12} {each.symptom:27} {each.description}{met}")
        return
    if not fault or checkpoint is None or destination is None:
        raise CannotRun("name a fault, a sound pruned checkpoint and a directory to write; --list shows the faults")
    plant_fault(fault, checkpoint, destination)
    print(f"{destination}: {FAULTS[fault].description}")
