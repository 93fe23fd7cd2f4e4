"""The command `prunecheck scan`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import CannotRun

from .options import AnySource, DeviceMap, Dtype, HtmlFile, JsonFile, Quiet, Revision, Texts, Tokens
from .output import NO_PICTURES, Output


def scan(
    source: AnySource,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The directory to write: record, pictures, what is measured.")
    ],
    revision: Revision = None,
    texts: Texts = None,
    tokens: Tokens = 1024,
    metric: Annotated[
        str | None, typer.Option(metavar="LIST", help="Of nll,kl,changed,influence,update,angular; all by default.")
    ] = None,
    device_map: DeviceMap = None,
    dtype: Dtype = None,
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    quiet: Quiet = False,
) -> None:
    """Measure what each sub-layer and layer of SRC contributes.

    For each self_attn, each mlp and each whole layer: what it does, and what removing it does to the predictions.
    Interrupted, the same command goes on where it was. Exit code 0: measured; 2: it could not be.
    """
    from harness.system.requirements import require_libraries

    from .hub import source_at

    output = Output(json_file, quiet)
    output.require_writable(html_file)
    require_libraries()
    options = _scan_options(metric=metric, device_map=device_map, dtype=dtype)

    from harness.planning.scan.page import scan_page
    from harness.planning.scan.plot import can_plot, write_pictures
    from harness.planning.scan.run import scan_checkpoint  # torch and transformers
    from harness.planning.scan.view import print_scan

    with output.progress() as progress:
        place = source_at(source, revision)
        record = scan_checkpoint(place, out=out, texts=texts or (), tokens=tokens, progress=progress, **options)
    output.show(lambda: print_scan(record))
    if can_plot():
        write_pictures(record, out)
    else:
        output.show(lambda: print(NO_PICTURES.format(out)))
    output.write_record(record.to_dict())
    output.write(html_file, lambda: scan_page(record))


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
