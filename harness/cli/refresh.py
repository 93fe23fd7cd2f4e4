"""The command `prunecheck refresh`."""

from pathlib import Path
from typing import Annotated

import typer

from pruning import __version__


def refresh(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also replace code that was changed, or is of a release not known here.")
    ] = False,
) -> None:
    """Put the present modeling code in the place of what the pruned checkpoint CKPT carries.

    Code of an earlier release of prunecheck can be wrong on a later release of transformers. The weights stay the very
    same files; code, auto_map and manifest are renewed. CKPT is complete or untouched, whatever happens.
    """
    from harness.report.terminal import visible
    from pruning import refresh_checkpoint

    result = refresh_checkpoint(checkpoint, force=force)
    place = visible(str(Path(checkpoint)))
    if not result.written and not result.removed:
        print(f"{place}: it carries the code of prunecheck {__version__} already, there is nothing to do")
        return
    before = f"that of prunecheck {result.before}" if result.before else "what was there"
    print(f"{place}: the code of prunecheck {__version__} is in the place of {before}")
    print(f"written: {', '.join(result.written) or 'nothing'}")
    if result.removed:
        print(f"removed: {', '.join(result.removed)}")
