"""The command `prunecheck demo`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import typer

from pruning import PrunePlan

from .options import JsonFile, PlanFile, Quiet
from .output import Output


def demo(plan: PlanFile = None, json_file: JsonFile = None, quiet: Quiet = False) -> None:
    """Prune a real checkpoint, load it in six ways, and prove each.

    Each way is compared with an equally loaded reference, and talks. The checkpoint is fetched once (93 MB) and kept in
    the user's cache; PRUNECHECK_CHECKPOINT names another. The plan is a bundled one unless --plan names a file. Exit
    code 0: sound; 1: faulty; 2: it could not run; 3: undecided, since a way of loading crashed.
    """
    from harness.report.outcomes import EXIT_CODES
    from harness.system.progress import step_progress
    from harness.system.requirements import require_libraries

    output = Output(json_file, quiet)
    output.require_writable()
    require_libraries()

    from .demo import bundled_plan, run_demo  # torch and transformers, for which `prune` has no use
    from .demo_view import print_report, verdict_text

    with step_progress(quiet=quiet) as step:
        report = run_demo(bundled_plan() if plan is None else PrunePlan.from_file(plan), step)
    output.show(lambda: print_report(report), verdict_text(report))
    output.write_record(report.to_dict())
    raise typer.Exit(EXIT_CODES[report.verdict])
