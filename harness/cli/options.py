"""The options and arguments that several commands share, each declared once. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.system.crashes import DEBUG

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")]
AnySource = Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint directory, pruned or not, or a hub id.")]
Base = Annotated[
    str | None, typer.Option("--base", metavar="SRC", help="The unpruned checkpoint: a directory, or a hub id.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="NAME", help="The branch, tag or commit of SRC, if it is a hub id.")
]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help='A JSON file: {"self_attn": [12], "mlp": [7]}.')
]

_PLACES = "plain,auto,disk-beside,disk-inside,gpu,gpus,disk-all"
_QUANTISATION = ("--quantisation", "--quantization")
DeviceMaps = Annotated[
    str | None, typer.Option("--device-map", metavar="LIST", help=f"Places to load into, of {_PLACES}.")
]
Dtypes = Annotated[str | None, typer.Option("--dtype", metavar="LIST", help="Of float32,bfloat16.")]
Quantisations = Annotated[str | None, typer.Option(*_QUANTISATION, metavar="LIST", help="Of 8bit,4bit; or none.")]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        metavar="PLACE",
        help="Where to load: plain, auto, gpu, gpus, disk-all, ...; the disk if nothing else fits.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="NAME", help="float32 or bfloat16; as it is stored if nothing is said."),
]

TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let the checkpoint's own code run; that of prunecheck always may."),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Say sound though keys, bytes or logits could not be checked.")
]
Keyword = Annotated[
    str | None, typer.Option("-k", metavar="EXPR", help="Only the checks whose name matches, as pytest's -k.")
]
Workers = Annotated[
    str, typer.Option("-n", "--workers", metavar="WORKERS", help="Processes to run in: a number, or auto.")
]

Texts = Annotated[
    list[Path] | None,
    typer.Option("--text", metavar="FILE", help="A file of UTF-8 text, in place of the bundled ones; repeatable."),
]
Tokens = Annotated[int, typer.Option("--tokens", metavar="N", min=2, max=10**7, help="Tokens of text to use, at most.")]

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the record as JSON to this file; - is stdout.")
]
HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page to this file.")]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML, for CI systems.")
]

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show nothing but errors and the verdict.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show each check, with what it measured.")]
Debug = Annotated[bool, typer.Option("--debug", envvar=DEBUG, help="Show the whole traceback of whatever crashes.")]
