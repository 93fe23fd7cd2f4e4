"""The commands `prunecheck matrix` and `prunecheck bisect`. Light to import: what they need is loaded when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .hub import base_at
from .options import (
    AllowPartial,
    Base,
    Checkpoint,
    DeviceMaps,
    Dtypes,
    HtmlFile,
    JsonFile,
    Keyword,
    PlanFile,
    Quantisations,
    Quiet,
    Revision,
    TrustRemoteCode,
    Workers,
)
from .output import Output


def matrix(
    checkpoint: Checkpoint,
    sets: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="PACKAGES",
            help="A set of packages, such as transformers==5.23.0; several in one word are separated by spaces.",
        ),
    ],
    base: Base = None,
    revision: Revision = None,
    plan: PlanFile = None,
    device_map: DeviceMaps = None,
    dtype: Dtypes = None,
    quantisation: Quantisations = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_partial: AllowPartial = False,
    keyword: Keyword = None,
    workers: Workers = "1",
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    quiet: Quiet = False,
) -> None:
    """Judge CKPT as `check` does, under several sets of packages.

    What a set needs is installed once, by pip, into the cache; the running environment stays as it is, and its torch is
    every set's. Exit code 1: faulty under a set; else 2: a set could not run; else 3: undecided under one; else 0.
    """
    output = Output(json_file, quiet)
    output.require_writable(html_file)
    options = _options(plan, device_map, dtype, quantisation, workers)

    from harness.releases.matrix import run_matrix
    from harness.releases.page import matrix_page
    from harness.releases.view import print_matrix

    with output.progress() as progress:
        record = run_matrix(
            checkpoint,
            sets=sets,
            base=base_at(base, revision),
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            progress=progress,
            warn=output.warn,
            **options,
        )
    verdicts = [f"{packages}: {text}" for packages, text in record.verdict_rows()]
    output.show(lambda: print_matrix(record), *verdicts)
    output.write_record(record.to_dict())
    output.write(html_file, lambda: matrix_page(record))
    raise typer.Exit(record.exit_code)


def bisect(
    checkpoint: Checkpoint,
    package: Annotated[str, typer.Option(metavar="NAME", help="The package whose releases are searched.")],
    good: Annotated[str, typer.Option(metavar="VERSION", help="An older release.")],
    bad: Annotated[str, typer.Option(metavar="VERSION", help="A newer one that is judged otherwise.")] = "latest",
    base: Base = None,
    revision: Revision = None,
    plan: PlanFile = None,
    device_map: DeviceMaps = None,
    dtype: Dtypes = None,
    quantisation: Quantisations = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_partial: AllowPartial = False,
    keyword: Annotated[
        str | None,
        typer.Option("-k", metavar="EXPR", help="Compare what these checks come to; without it, the verdict."),
    ] = None,
    workers: Workers = "1",
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    quiet: Quiet = False,
) -> None:
    """Find the release of a package that changes the verdict on CKPT.

    It is the first such release, and what changed with it is said, too. Each judgement is kept: interrupted, the same
    command goes on where it was. Exit code 0: found; 3: it may be one of several, which could not be judged; 2: there
    is nothing to find, or an end of the search could not be judged.
    """
    output = Output(json_file, quiet)
    output.require_writable(html_file)
    options = _options(plan, device_map, dtype, quantisation, workers)

    from harness.releases.bisect import run_bisect
    from harness.releases.page import bisection_page
    from harness.releases.view import print_bisection

    with output.progress() as progress:
        record = run_bisect(
            checkpoint,
            package=package,
            good=good,
            bad=bad,
            base=base_at(base, revision),
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            progress=progress,
            warn=output.warn,
            **options,
        )
    output.show(lambda: print_bisection(record), record.answer())
    output.write_record(record.to_dict())
    output.write(html_file, lambda: bisection_page(record))
    raise typer.Exit(record.exit_code)


def _options(
    plan: Path | None, device_map: str | None, dtype: str | None, quantisation: str | None, workers: str
) -> dict[str, Any]:
    """Return what a request has of the options as typed; raises CannotRun, before any work, for what is wrong."""
    from harness.models.options import judging_options, worker_count

    chosen = judging_options(plan=plan, device_map=device_map, dtype=dtype, quantisation=quantisation)
    return chosen | {"workers": worker_count(workers)}
