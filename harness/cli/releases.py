"""The commands `prunecheck matrix` and `prunecheck bisect`. Light to import: what they need is loaded when called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")]
Base = Annotated[
    str | None, typer.Option("--base", metavar="SRC", help="The unpruned checkpoint: a directory, or a hub id.")
]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help='A JSON file: {"self_attn": [12], "mlp": [7]}.')
]
DeviceMap = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Places to load into: plain,auto,disk-beside,disk-inside,gpu,gpus,disk-all."),
]
Dtype = Annotated[str | None, typer.Option(metavar="LIST", help="Of float32,bfloat16.")]
Quantisation = Annotated[str | None, typer.Option(metavar="LIST", help="Of 8bit,4bit; or none.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own code run; prunecheck's needs no leave.")
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Say sound though keys, bytes or logits could not be checked.")
]
Workers = Annotated[
    str, typer.Option("-n", "--workers", metavar="WORKERS", help="Processes to run in: a number, or auto.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the record as JSON to this file, reports included.")
]
HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page to this file.")]


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
    plan: PlanFile = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    quantisation: Quantisation = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_partial: AllowPartial = False,
    keyword: Annotated[
        str | None, typer.Option("-k", metavar="EXPR", help="Only the checks whose name matches, as pytest's -k.")
    ] = None,
    workers: Workers = "1",
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
) -> None:
    """Judge the pruned checkpoint CKPT as `check` does, under each set of packages that --with names.

    What a set needs is installed once, by pip, into the cache; the running environment stays as it is, and its torch is
    every set's. Exit code 1: faulty under a set; else 2: a set could not run; else 3: undecided under one; else 0.
    """
    options = _options(plan, device_map, dtype, quantisation, workers, (json_file, html_file))

    from harness.releases.matrix import run_matrix
    from harness.releases.page import matrix_page
    from harness.releases.view import print_matrix

    with _progress() as progress:
        record = run_matrix(
            checkpoint,
            sets=sets,
            base=base,
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            progress=progress,
            warn=_warn,
            **options,
        )
    print_matrix(record)
    _write(record.to_dict(), json_file, lambda: matrix_page(record), html_file)
    raise typer.Exit(record.exit_code)


def bisect(
    checkpoint: Checkpoint,
    package: Annotated[str, typer.Option(metavar="NAME", help="The package whose releases are searched.")],
    good: Annotated[str, typer.Option(metavar="VERSION", help="An older release.")],
    bad: Annotated[str, typer.Option(metavar="VERSION", help="A newer one that is judged otherwise.")] = "latest",
    base: Base = None,
    plan: PlanFile = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    quantisation: Quantisation = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_partial: AllowPartial = False,
    keyword: Annotated[
        str | None,
        typer.Option("-k", metavar="EXPR", help="Compare what these checks come to; without it, the verdict."),
    ] = None,
    workers: Workers = "1",
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
) -> None:
    """Find the first release of a package at which the verdict on CKPT changes, and say what changed with it.

    Each judgement is kept: interrupted, the same command goes on where it was. Exit code 0: found; 3: it may be one of
    several, which could not be judged; 2: there is nothing to find, or an end of the search could not be judged.
    """
    options = _options(plan, device_map, dtype, quantisation, workers, (json_file, html_file))

    from harness.releases.bisect import run_bisect
    from harness.releases.page import bisection_page
    from harness.releases.view import print_bisection

    with _progress() as progress:
        record = run_bisect(
            checkpoint,
            package=package,
            good=good,
            bad=bad,
            base=base,
            trust_remote_code=trust_remote_code,
            allow_partial=allow_partial,
            keyword=keyword,
            progress=progress,
            warn=_warn,
            **options,
        )
    print_bisection(record)
    _write(record.to_dict(), json_file, lambda: bisection_page(record), html_file)
    raise typer.Exit(record.exit_code)


def _options(
    plan: Path | None,
    device_map: str | None,
    dtype: str | None,
    quantisation: str | None,
    workers: str,
    files: tuple[Path | None, ...],
) -> dict[str, Any]:
    """Return what a request has of the options as typed; raises CannotRun, before any work, for what is wrong."""
    from harness.report.files import require_writable

    for path in files:
        require_writable(path)
    from harness.models.options import judging_options, worker_count

    chosen = judging_options(plan=plan, device_map=device_map, dtype=dtype, quantisation=quantisation)
    return chosen | {"workers": worker_count(workers)}


def _progress() -> Any:
    from harness.system.progress import count_progress

    return count_progress()


def _warn(text: str) -> None:
    from harness.report.terminal import visible

    print(f"prunecheck: {visible(text)}", file=sys.stderr, flush=True)


def _write(record: dict[str, Any], json_file: Path | None, page: Callable[[], str], html_file: Path | None) -> None:
    from harness.report.files import write_text

    if json_file is not None:
        write_text(json_file, json.dumps(record, indent=2) + "\n")
    if html_file is not None:
        write_text(html_file, page())
