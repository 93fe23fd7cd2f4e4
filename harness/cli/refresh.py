"""The command `prunecheck refresh`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruning import __version__

from .options import Quiet
from .output import Output

if TYPE_CHECKING:
    from pruning import RefreshResult


def refresh(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also replace code that was changed, or is of a release not known here.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Put the present modeling code into the pruned checkpoint CKPT.

    It takes the place of what CKPT carries. Code of an earlier release of prunecheck can be wrong on a later release of
    transformers. The weights stay the very same files; code, auto_map and manifest are renewed. CKPT is complete or
    untouched, whatever happens.
    """
    from pruning import refresh_checkpoint

    result = refresh_checkpoint(checkpoint, force=force)
    Output(quiet=quiet).show(lambda: _print_result(result, checkpoint))


def _print_result(result: RefreshResult, checkpoint: str) -> None:
    from harness.report.terminal import visible

    place = visible(str(Path(checkpoint)))
    if not result.written and not result.removed:
        print(f"{place}: it carries the code of prunecheck {__version__} already, there is nothing to do")
        return
    before = f"that of prunecheck {result.before}" if result.before else "what was there"
    print(f"{place}: the code of prunecheck {__version__} is in the place of {before}")
    print(f"written: {', '.join(result.written) or 'nothing'}")
    if result.removed:
        print(f"removed: {', '.join(result.removed)}")
