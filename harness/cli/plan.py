"""The command `prunecheck plan`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import CannotRun

from .options import AnySource, DeviceMap, Dtype, HtmlFile, JsonFile, Quiet, Revision, Texts, Tokens
from .output import NO_PICTURES, Output


def plan(
    source: AnySource,
    revision: Revision = None,
    drop: Annotated[int | None, typer.Option("--drop", metavar="N", help="Remove so many sub-layers.")] = None,
    keep_bytes: Annotated[
        str | None,
        typer.Option(
            "--keep-bytes", metavar="SHARE", help="Remove until no more than this share of bytes is left: 0.8, or 80%."
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
    texts: Texts = None,
    tokens: Tokens = 1024,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    quiet: Quiet = False,
) -> None:
    """Choose what to prune from SRC under a budget.

    The budget is one of --drop, --keep-bytes and --max-nll-rise. DIR/plan.json is for `prunecheck prune --plan`.
    Interrupted, the same command goes on where it was. Exit code 0: there is a plan; 2: there is none.
    """
    from harness.system.requirements import require_libraries

    from .hub import source_at

    output = Output(json_file, quiet)
    output.require_writable(html_file)
    share = None if keep_bytes is None else _share(keep_bytes)
    require_libraries()

    from harness.models.options import one_way_of_loading  # torch and transformers, which take seconds

    options = one_way_of_loading(device_map=device_map, dtype=dtype)

    from harness.planning.scan.plot import can_plot
    from harness.planning.search.page import search_page
    from harness.planning.search.plot import write_pictures
    from harness.planning.search.run import PLAN_FILE, search_plan
    from harness.planning.search.view import print_search

    with output.progress() as progress:
        record = search_plan(
            source_at(source, revision),
            out=out,
            drop=drop,
            keep_bytes=share,
            max_nll_rise=max_nll_rise,
            method=method,
            width=width,
            texts=texts or (),
            tokens=tokens,
            progress=progress,
            **options,
        )
    output.show(lambda: print_search(record), str(record.plan))
    if can_plot():
        write_pictures(record, out)
    else:
        output.show(lambda: print(NO_PICTURES.format(out)))
    output.write_record(record.to_dict())
    output.write(html_file, lambda: search_page(record))
    words = ["prunecheck", "prune", source, "DST", "--plan", str(out / PLAN_FILE)]
    words += ["--revision", revision] if revision else []
    output.show(lambda: print(f"next: {shlex.join(words)}"))


def _share(text: str) -> float:
    """Return a share from text such as `0.8` or `80%`; raises CannotRun for anything else."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = None
    if share is None or rest:
        raise CannotRun(f"--keep-bytes {text} is not a share: write one below 1, such as 0.8, or a percentage, 80%")
    if not percent and share > 1:
        raise CannotRun(f"--keep-bytes {text} is more than all: write a share below 1, or a percentage, {text}%")
    return share
