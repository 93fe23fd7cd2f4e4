"""The command `prunecheck check`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import typer

from .options import (
    AllowPartial,
    Base,
    Checkpoint,
    Debug,
    DeviceMaps,
    Dtypes,
    HtmlFile,
    JsonFile,
    JunitFile,
    Keyword,
    PlanFile,
    Quantisations,
    Quiet,
    Revision,
    TrustRemoteCode,
    Verbose,
    Workers,
)
from .output import Output


def check(
    checkpoint: Checkpoint,
    base: Base = None,
    revision: Revision = None,
    plan: PlanFile = None,
    device_map: DeviceMaps = None,
    dtype: Dtypes = None,
    quantisation: Quantisations = None,
    json_file: JsonFile = None,
    junit_file: JunitFile = None,
    html_file: HtmlFile = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_partial: AllowPartial = False,
    keyword: Keyword = None,
    workers: Workers = "1",
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Judge CKPT: is it what its plan makes of the base?

    Exit code 0: sound; 1: faulty; 2: it could not be judged; 3: undecided, since something could not be checked, or a
    check crashed. Without --base all is checked that can be.
    """
    from harness.report.outcomes import EXIT_CODES
    from harness.subject.untrusted_files import checkpoint_directory
    from harness.system.requirements import require_libraries

    from .hub import base_at

    output = Output(json_file, quiet)
    output.require_writable(junit_file, html_file)
    checkpoint = checkpoint_directory(checkpoint)
    base = base_at(base, revision)
    require_libraries()

    from harness.judge.judge import check_checkpoint  # torch and transformers, which take seconds
    from harness.models.options import judging_options, worker_count
    from harness.report.checks_view import print_checks
    from harness.report.junit import junit_xml
    from harness.report.report_page import report_page
    from harness.report.report_view import print_report
    from harness.system.progress import check_progress

    options = judging_options(plan=plan, device_map=device_map, dtype=dtype, quantisation=quantisation)
    with check_progress(quiet=quiet, each_check=verbose) as progress:
        report = check_checkpoint(
            checkpoint,
            base=base,
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            workers=worker_count(workers),
            progress=progress,
            warn=output.warn,
            **options,
        )
    if verbose:
        output.show(lambda: print_checks(report))
    output.show(lambda: print_report(report, debug=debug), report.verdict_text)
    output.write_record(report.to_dict())
    output.write(junit_file, lambda: junit_xml(report))
    output.write(html_file, lambda: report_page(report))
    raise typer.Exit(EXIT_CODES[report.verdict])
