"""The command `prunecheck doctor`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import typer

from harness.errors import CannotRun

from .options import JsonFile, Quiet, Verbose
from .output import Output


def doctor(json_file: JsonFile = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Say whether this machine computes pruned models right.

    A tiny checkpoint is pruned and judged as `check` judges any other, in each way of loading that is here; then come
    the versions of what is installed. For bug reports, and before a long run. Exit code 0: right; 1: something computes
    wrong; 2: it could not run; 3: something could not be decided.
    """
    from harness.doctor.record import EXIT_CODES
    from harness.doctor.view import print_checkup, print_versions, verdict_text
    from harness.report.checks_view import print_checks
    from harness.system.requirements import require_libraries
    from harness.system.versions import installed_versions

    output = Output(json_file, quiet)
    output.require_writable()
    try:
        require_libraries()
        from harness.doctor.run import examine  # torch and transformers, which take seconds
    except CannotRun:
        output.show(lambda: print_versions(installed_versions()))
        raise
    except (ImportError, OSError, RuntimeError) as error:  # of a library that is absent, or built for another machine
        output.show(lambda: print_versions(installed_versions()))
        text = " ".join(str(error).split())
        raise CannotRun(
            f"the libraries cannot be imported: {text}: install the versions that prunecheck asks for"
        ) from None

    with output.progress() as progress:
        checkup = examine(progress)
    if verbose:
        output.show(lambda: print_checks(checkup.report))
    output.show(lambda: print_checkup(checkup), verdict_text(checkup))
    output.write_record(checkup.to_dict())
    raise typer.Exit(EXIT_CODES[checkup.verdict])
