"""Progress on stderr: a bar on a terminal, elsewhere nothing, or a line for each part of the work."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)


@contextmanager
def byte_progress(title: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of bytes; yields a function to call with the number of bytes just done, and the number in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with _bar(*columns, quiet=quiet) as progress:
        task = progress.add_task(title, total=None)
        yield lambda count, total: progress.update(task, advance=count, total=total)


@contextmanager
def step_progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a spinner; yields a function to call with what is being done now."""
    with _bar(SpinnerColumn(), TextColumn("{task.description}"), quiet=quiet) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


@contextmanager
def count_progress(*, quiet: bool = False) -> Iterator[Callable[[float, int, str], None]]:
    """Show a bar of steps; yields a function to call with how many are done, how many there are, and what comes now.

    A step that is done in part moves the bar, not the number.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with _bar(*columns, quiet=quiet) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, text: progress.update(task, completed=done, total=total, description=text)


@contextmanager
def check_progress(*, quiet: bool = False, each_check: bool = False) -> Iterator[Callable[[float, int, str], None]]:
    """Show the bar of `count_progress`; off a terminal a line for each way of loading, or for each check.

    The names of checks begin with the way of loading, in front of the first dot.
    """
    if quiet or Console(stderr=True).is_terminal:
        with count_progress(quiet=quiet) as progress:
            yield progress
        return
    shown = ""

    def line(done: float, total: int, name: str) -> None:
        nonlocal shown
        part = name if each_check else name.partition(".")[0]
        if part != shown:
            shown = part
            print(f"prunecheck: [{done:.0f}/{total}] {part}", file=sys.stderr, flush=True)

    yield line


def _bar(*columns: object, quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)  # type: ignore[arg-type]
