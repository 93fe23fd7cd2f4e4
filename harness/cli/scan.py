"""The command `prunecheck scan`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import CannotRun


def scan(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, pruned or not, or a hub id.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The directory to write: record, pictures, what is measured.")
    ],
    texts: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="A file of UTF-8 text, in place of the bundled ones; repeatable."),
    ] = None,
    tokens: Annotated[int, typer.Option(metavar="N", min=2, max=10**7, help="Tokens of text to use, at most.")] = 1024,
    metric: Annotated[
        str | None, typer.Option(metavar="LIST", help="Of nll,kl,changed,influence,update,angular; all by default.")
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Where to load: plain, auto, gpu, gpus, disk-all, ...; the disk if nothing else fits."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32 or bfloat16; as it is stored if nothing is said.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the record as JSON to this file, too.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the scan as one HTML page to this file.")
    ] = None,
) -> None:
    """Measure what each self_attn, mlp and whole layer of SRC contributes, and what removing it does.

    Interrupted, the same command goes on where it was. Exit code 0: measured; 2: it could not be.
    """
    from harness.report.files import require_writable, write_text
    from harness.system.progress import count_progress

    for path in (json_file, html_file):
        require_writable(path)
    options = _scan_options(metric=metric, device_map=device_map, dtype=dtype)

    from harness.planning.scan.plot import can_plot, write_pictures
    from harness.planning.scan.run import scan_checkpoint  # torch and transformers
    from harness.planning.scan.view import print_scan

    with count_progress() as progress:
        record = scan_checkpoint(source, out=out, texts=texts or (), tokens=tokens, progress=progress, **options)
    print_scan(record)
    if can_plot():
        write_pictures(record, out)
    else:
        print(f"no pictures are drawn into {out}: matplotlib is not installed; pip install 'prunecheck[plot]'")
    if json_file is not None:
        write_text(json_file, json.dumps(record.to_dict(), indent=2) + "\n")
    if html_file is not None:
        from harness.planning.scan.page import scan_page

        write_text(html_file, scan_page(record))


def _scan_options(*, metric: str | None, device_map: str | None, dtype: str | None) -> dict[str, Any]:
    """Return keyword arguments of `scan_checkpoint` from options as typed: one way of loading, several metrics.

    Raises CannotRun for an unknown name, and for several ways of loading.
    """
    from harness.models.options import chosen_names, one_way_of_loading
    from harness.planning.scan.estimate import METRICS  # numpy, for which the other commands have no use

    options: dict[str, Any] = {"metrics": chosen_names("--metric", metric, tuple(METRICS))}
    if not options["metrics"]:
        raise CannotRun(f"--metric names nothing: choose among {', '.join(METRICS)}")
    return options | one_way_of_loading(device_map=device_map, dtype=dtype)
