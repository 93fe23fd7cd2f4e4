"""The command `prunecheck`. Exit codes: 0 sound or done, 1 fault found, 2 could not run, 3 undecided."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from harness.errors import CannotRun
from harness.system.crashes import DEBUG, internal_error
from harness.system.signals import ended_by, exit_at_signals
from pruning import PlanError, PrunePlan, PruningError, __version__

from .bench import bench
from .doctor import doctor
from .plan import plan as search_plan
from .refresh import refresh
from .releases import bisect, matrix
from .scan import scan

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich is not worth the time that it takes to import, where only help is asked for
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prune sub-layers of language models, and prove that the pruned model is the model that was meant.",
)

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help='A JSON file: {"self_attn": [12], "mlp": [7]}.')
]


def main() -> NoReturn:
    """Run the command line; a user's mistake, or a crash of ours, becomes one line on stderr and exit code 2."""
    exit_at_signals()
    try:
        app()
    except SystemExit as end:
        # typer ends with 1 where nobody reads what is printed, which would stand for a fault (0.29.2, `core._main`).
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(2)
        raise
    except Exception as error:
        if (ended := ended_by(error)) is not None:
            sys.exit(ended.code)
        _tell(error)
        sys.exit(2)
    sys.exit(0)


def _tell(error: Exception) -> None:
    """Write one line on stderr for an error that ends the command; for a crash, if it is asked for, the traceback."""
    from harness.report.terminal import visible  # names from strangers may hold what a terminal obeys

    lines = [f"prunecheck: {error}"]
    if not isinstance(error, PruningError | CannotRun):
        lines = internal_error(error, in_full="--debug" in sys.argv or bool(os.environ.get(DEBUG)))
    print(*map(visible, lines), sep="\n", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"prunecheck {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    plan: PlanFile = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON to this file, too.")
    ] = None,
) -> None:
    """Prune a real Qwen3 checkpoint, load it in several ways, prove each equal to a reference, let it talk.

    The checkpoint is fetched once (93 MB) and kept in the user's cache; PRUNECHECK_CHECKPOINT names another. The
    plan is a bundled one unless --plan names a file. Exit code 0: sound; 1: faulty; 2: it could not run; 3: undecided,
    since a way of loading crashed.
    """
    from harness.report.files import require_writable, write_text
    from harness.report.outcomes import EXIT_CODES
    from harness.system.progress import step_progress

    from .demo import bundled_plan, run_demo  # torch and transformers, for which `prune` has no use
    from .demo_view import print_report

    require_writable(json_file)
    with step_progress() as step:
        report = run_demo(bundled_plan() if plan is None else PrunePlan.from_file(plan), step)
    print_report(report)
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_dict(), indent=2) + "\n")
    raise typer.Exit(EXIT_CODES[report.verdict])


@app.command()
def check(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="SRC", help="The unpruned checkpoint: a directory, or a hub id.")
    ] = None,
    plan: PlanFile = None,
    device_map: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Places to load into: plain,auto,disk-beside,disk-inside,gpu,gpus,disk-all."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(metavar="LIST", help="Of float32,bfloat16.")] = None,
    quantisation: Annotated[str | None, typer.Option(metavar="LIST", help="Of 8bit,4bit; or none.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON to this file.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML, for CI systems.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one HTML page to this file.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let the checkpoint's own code run; prunecheck's needs no leave."),
    ] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Say sound though keys, bytes or logits could not be checked.")
    ] = False,
    keyword: Annotated[
        str | None, typer.Option("-k", metavar="EXPR", help="Only the checks whose name matches, as pytest's -k.")
    ] = None,
    workers: Annotated[
        str, typer.Option("-n", "--workers", metavar="WORKERS", help="Processes to run in: a number, or auto.")
    ] = "1",
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG, help="Show the whole traceback of each check that crashes.")
    ] = False,
) -> None:
    """Judge the pruned checkpoint CKPT: is it what its plan makes of the base?

    Exit code 0: sound; 1: faulty; 2: it could not be judged; 3: undecided, since something could not be checked, or a
    check crashed. Without --base all is checked that can be.
    """
    from harness.report.files import require_writable, write_text
    from harness.report.outcomes import EXIT_CODES
    from harness.subject.untrusted_files import checkpoint_directory

    for path in (json_file, junit_file, html_file):
        require_writable(path)
    checkpoint = checkpoint_directory(checkpoint)

    from harness.judge.judge import check_checkpoint  # torch and transformers, which take seconds
    from harness.models.options import judging_options, worker_count
    from harness.report.junit import junit_xml
    from harness.report.report_view import print_report
    from harness.report.terminal import visible
    from harness.system.progress import count_progress

    options = judging_options(plan=plan, device_map=device_map, dtype=dtype, quantisation=quantisation)

    def warn(text: str) -> None:
        print(f"prunecheck: {visible(text)}", file=sys.stderr, flush=True)

    with count_progress() as progress:
        report = check_checkpoint(
            checkpoint,
            base=base,
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            workers=worker_count(workers),
            progress=progress,
            warn=warn,
            **options,
        )
    print_report(report, debug=debug)
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_dict(), indent=2) + "\n")
    if junit_file is not None:
        write_text(junit_file, junit_xml(report))
    if html_file is not None:
        from harness.report.report_page import report_page

        write_text(html_file, report_page(report))
    raise typer.Exit(EXIT_CODES[report.verdict])


app.command()(bench)
app.command()(refresh)
app.command()(scan)
app.command()(doctor)
app.command("plan")(search_plan)
app.command()(matrix)
app.command()(bisect)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="What `check --json` or `bench --json` wrote.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="A later one, to compare with it.")],
) -> None:
    """Say what changed between two reports, or two benchmarks: of two versions of a library, or of two plans.

    Exit code 0: nothing got worse; 1: the verdict, a check, or a gain of pruning did; 2: a file is none of these. A
    check that crashes now got worse.
    """
    from harness.bench.record import Benchmark
    from harness.report.files import read_record

    if Benchmark.is_in(read_record(before)) or Benchmark.is_in(read_record(after)):
        from harness.bench.comparison import compare_benchmarks, print_benchmark_comparison

        costs = compare_benchmarks(Benchmark.from_file(before), Benchmark.from_file(after))
        print_benchmark_comparison(costs)
        raise typer.Exit(1 if costs.is_regression else 0)
    from harness.report.comparison import compare_reports
    from harness.report.comparison_view import print_comparison
    from harness.report.report import Report

    comparison = compare_reports(Report.from_file(before), Report.from_file(after))
    print_comparison(comparison)
    raise typer.Exit(1 if comparison.is_regression else 0)


@app.command()
def plant(
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="The fault's name, as --list shows it.")] = "",
    checkpoint: Annotated[Path | None, typer.Argument(metavar="CKPT", help="A sound pruned checkpoint.")] = None,
    destination: Annotated[Path | None, typer.Argument(metavar="DST", help="The directory to write.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show every fault, and what it does.")] = False,
) -> None:
    """Write a faulty copy of the sound checkpoint CKPT to DST, to test what should find the fault."""
    from harness.faults import FAULTS
    from harness.faults import plant as plant_fault

    if show:
        for each in FAULTS.values():
            met = "" if each.met is None else f" (met in {each.met})"
            print(f"{each.id:45} {each.family:13} {each.where:12} {each.symptom:27} {each.description}{met}")
        return
    if not fault or checkpoint is None or destination is None:
        raise CannotRun("name a fault, a sound pruned checkpoint and a directory to write; --list shows the faults")
    plant_fault(fault, checkpoint, destination)
    print(f"{destination}: {FAULTS[fault].description}")


@app.command()
def prune(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, or a hub id.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write.")],
    self_attn: Annotated[
        str, typer.Option("--self-attn", metavar="LIST", help="Layers to prune self_attn of, such as 12,17-20.")
    ] = "",
    mlp: Annotated[
        str, typer.Option("--mlp", metavar="LIST", help="Layers to prune mlp of, such as 7; 0 is the first.")
    ] = "",
    plan: PlanFile = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="The branch, tag or commit of a hub id.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST, once the new one is complete.")] = False,
    no_checksum: Annotated[
        bool, typer.Option("--no-checksum", help="Leave the sha256 of the tensors out of the manifest.")
    ] = False,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait until everything is on the disk.")] = False,
) -> None:
    """Write the checkpoint SRC without the named sub-layers to DST.

    No model is built: the kept tensors are copied byte for byte. DST is complete or absent, whatever happens.
    """
    from harness.report.terminal import visible
    from harness.system.progress import byte_progress
    from pruning import prune_checkpoint

    if not self_attn and not mlp and plan is None:
        raise PlanError("nothing to prune: name layers with --self-attn, --mlp or --plan")
    chosen = PrunePlan.parse(self_attn=self_attn, mlp=mlp)
    if plan is not None:
        chosen |= PrunePlan.from_file(plan)
    with byte_progress("writing") as progress:
        result = prune_checkpoint(
            source,
            destination,
            chosen,
            revision=revision,
            overwrite=overwrite,
            checksum=not no_checksum,
            sync=not no_sync,
            progress=progress,
        )
    print(f"{result.destination}: {result.plan} ({len(result.plan.sublayers)} sub-layers)")
    print(
        f"tensors: {result.bytes_before / 1e6:.1f} MB before, {result.bytes_after / 1e6:.1f} MB after "
        f"({result.bytes_after / max(result.bytes_before, 1):.1%}), in {result.shards} file(s)"
    )
    if result.left_behind:
        print(f"left behind in {source}: {visible(', '.join(result.left_behind))}")
