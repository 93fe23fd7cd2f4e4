"""The command `prunecheck`. Exit codes: 0 sound or done, 1 fault found, 2 could not run."""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pruning import PlanError, PrunePlan, PruningError, __version__, prune_checkpoint
from pruning.plan import SUBLAYERS

from .errors import CannotRun

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prune sub-layers of language models, and prove that the pruned model is the model that was meant.",
)

PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help='A JSON file: {"self_attn": [12], "mlp": [7]}.')
]


def main() -> NoReturn:
    """Run the command line; a user's mistake becomes one line on stderr and exit code 2."""
    # As for Ctrl-C: what was begun is undone on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except (PruningError, CannotRun) as error:
        print(f"prunecheck: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


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
    plan is a bundled one unless --plan names a file.
    """
    from .demo import bundled_plan, run_demo  # torch and transformers, for which `prune` has no use
    from .demo_view import print_report
    from .progress import step_progress

    if json_file is not None and not json_file.parent.is_dir():
        raise CannotRun(f"{json_file} cannot be written: {json_file.parent} is no directory")
    with step_progress() as step:
        report = run_demo(bundled_plan() if plan is None else PrunePlan.from_file(plan), step)
    print_report(report)
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CannotRun(f"{json_file} cannot be written: {error.strerror}") from None
    raise typer.Exit(0 if report.verdict == "sound" else 1)


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
    from .progress import byte_progress

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
    count = sum(len(getattr(result.plan, sublayer)) for sublayer in SUBLAYERS)
    print(f"{result.destination}: {result.plan} ({count} sub-layers)")
    print(
        f"tensors: {result.bytes_before / 1e6:.1f} MB before, {result.bytes_after / 1e6:.1f} MB after "
        f"({result.bytes_after / max(result.bytes_before, 1):.1%}), in {result.shards} file(s)"
    )
    if result.left_behind:
        print(f"left behind in {source}: {', '.join(result.left_behind)}")
