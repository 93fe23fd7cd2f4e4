"""The command `prunecheck doctor`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import CannotRun


def doctor(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the record as JSON to this file.")
    ] = None,
) -> None:
    """Say what is installed, which ways of loading this machine has, and whether pruned models compute right in each.

    A tiny checkpoint is pruned and judged as `check` judges any other. For bug reports, and before a long run. Exit
    code 0: right; 1: something computes wrong; 2: it could not run; 3: something could not be decided.
    """
    from harness.doctor.record import EXIT_CODES
    from harness.doctor.view import print_checkup, print_versions
    from harness.report.files import require_writable, write_text
    from harness.system.progress import count_progress

    require_writable(json_file)
    try:
        from harness.doctor.run import examine  # torch and transformers, which take seconds
    except (ImportError, OSError, RuntimeError) as error:  # of a library that is absent, or built for another machine
        from harness.system.versions import installed_versions

        print_versions(installed_versions())
        text = " ".join(str(error).split())
        raise CannotRun(
            f"the libraries cannot be imported: {text}: install the versions that prunecheck asks for"
        ) from None

    with count_progress() as progress:
        checkup = examine(progress)
    print_checkup(checkup)
    if json_file is not None:
        write_text(json_file, json.dumps(checkup.to_dict(), indent=2) + "\n")
    raise typer.Exit(EXIT_CODES[checkup.verdict])
