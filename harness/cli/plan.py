"""The command `prunecheck plan`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer


def plan(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, pruned or not, or a hub id.")],
    drop: Annotated[int | None, typer.Option("--drop", metavar="N", help="Remove so many sub-layers.")] = None,
    keep_bytes: Annotated[
        float | None,
        typer.Option(
            "--keep-bytes", metavar="SHARE", help="Remove until no more than this share of bytes is left: 0.8."
        ),
    ] = None,
    max_nll_rise: Annotated[
        float | None,
        typer.Option("--max-nll-rise", metavar="NATS", help="Remove as much as costs no more nats per token: 0.3."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="greedy, evaluated anew after each removal; one-shot; or beam.")
    ] = "greedy",
    width: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="How many plans of each size beam goes on with.")
    ] = 3,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The directory to write: plan, record, pictures.")
    ] = Path("plan"),
    texts: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="A file of UTF-8 text, in place of the bundled ones; repeatable."),
    ] = None,
    tokens: Annotated[int, typer.Option(metavar="N", min=2, max=10**7, help="Tokens of text to use, at most.")] = 1024,
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
        Path | None, typer.Option("--html", metavar="FILE", help="Write the search as one HTML page to this file.")
    ] = None,
) -> None:
    """Choose what to prune from SRC under a budget, which is one of --drop, --keep-bytes and --max-nll-rise.

    DIR/plan.json is for `prunecheck prune --plan`. Interrupted, the same command goes on where it was. Exit code 0:
    there is a plan; 2: there is none.
    """
    from harness.models.options import one_way_of_loading
    from harness.report.files import require_writable, write_text
    from harness.system.progress import count_progress

    for path in (json_file, html_file):
        require_writable(path)
    options = one_way_of_loading(device_map=device_map, dtype=dtype)

    from harness.planning.scan.plot import can_plot
    from harness.planning.search.plot import write_pictures
    from harness.planning.search.run import PLAN_FILE, search_plan  # torch and transformers
    from harness.planning.search.view import print_search

    with count_progress() as progress:
        record = search_plan(
            source,
            out=out,
            drop=drop,
            keep_bytes=keep_bytes,
            max_nll_rise=max_nll_rise,
            method=method,
            width=width,
            texts=texts or (),
            tokens=tokens,
            progress=progress,
            **options,
        )
    print_search(record)
    if can_plot():
        write_pictures(record, out)
    else:
        print(f"no pictures are drawn into {out}: matplotlib is not installed; pip install 'prunecheck[plot]'")
    if json_file is not None:
        write_text(json_file, json.dumps(record.to_dict(), indent=2) + "\n")
    if html_file is not None:
        from harness.planning.search.page import search_page

        write_text(html_file, search_page(record))
    print(f"next: prunecheck prune {shlex.quote(source)} DST --plan {shlex.quote(str(out / PLAN_FILE))}")
