"""The command `prunecheck prune`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruning import PlanError, PrunePlan

from .options import AnySource, PlanFile, Quiet, Revision
from .output import Output

if TYPE_CHECKING:
    from pruning import PruneResult


def prune(
    source: AnySource,
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write.")],
    self_attn: Annotated[
        str, typer.Option("--self-attn", metavar="LIST", help="Layers to prune self_attn of, such as 12,17-20.")
    ] = "",
    mlp: Annotated[
        str, typer.Option("--mlp", metavar="LIST", help="Layers to prune mlp of, such as 7; 0 is the first.")
    ] = "",
    plan: PlanFile = None,
    revision: Revision = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST, once the new one is complete.")] = False,
    no_checksum: Annotated[
        bool, typer.Option("--no-checksum", help="Leave the sha256 of the tensors out of the manifest.")
    ] = False,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not wait until everything is on the disk.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the checkpoint SRC without the named sub-layers to DST.

    No model is built: the kept tensors are copied byte for byte. DST is complete or absent, whatever happens.
    """
    from harness.system.progress import byte_progress
    from pruning import prune_checkpoint
    from pruning.files.source import find_checkpoint, pruned_already

    if not self_attn and not mlp and plan is None:
        raise PlanError("nothing to prune: name layers with --self-attn, --mlp or --plan")
    chosen = PrunePlan.parse(self_attn=self_attn, mlp=mlp)
    if plan is not None:
        chosen |= PrunePlan.from_file(plan)
    root = find_checkpoint(source, revision)
    if (chosen - pruned_already(root)).is_empty:
        raise PlanError(f"nothing to prune: {source} lacks {chosen} already")
    with byte_progress("writing", quiet=quiet) as progress:
        result = prune_checkpoint(
            root,
            destination,
            chosen,
            overwrite=overwrite,
            checksum=not no_checksum,
            sync=not no_sync,
            dry_run=dry_run,
            progress=progress,
        )
    Output(quiet=quiet).show(lambda: _print_result(result, source, dry_run=dry_run))


def _print_result(result: PruneResult, source: str, *, dry_run: bool) -> None:
    from harness.report.terminal import counted, visible

    count = counted(len(result.plan.sublayers), "sub-layer")
    print(f"{visible(str(result.destination))}: {result.plan} ({count})")
    share = result.bytes_after / max(result.bytes_before, 1)
    print(
        f"tensors: {result.bytes_before / 1e6:.1f} MB before, {result.bytes_after / 1e6:.1f} MB after ({share:.1%}), "
        f"in {counted(result.shards, 'file')}"
    )
    if result.left_behind:
        print(f"left behind in {source}: {visible(', '.join(result.left_behind))}")
    if dry_run:
        print("nothing was written: leave --dry-run out to write it")
