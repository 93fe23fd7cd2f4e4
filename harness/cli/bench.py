"""The command `prunecheck bench`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import CannotRun


def bench(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="The directory of the pruned checkpoint.")],
    base: Annotated[
        str, typer.Option("--base", metavar="SRC", help="The unpruned checkpoint: a directory, or a hub id.")
    ],
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help='A JSON file: {"self_attn": [12], "mlp": [7]}.')
    ] = None,
    device_map: Annotated[
        str,
        typer.Option(metavar="LIST", help="Places to load into: plain,auto,disk-beside,disk-inside,gpu,gpus,disk-all."),
    ] = "plain",
    dtype: Annotated[
        str | None, typer.Option(metavar="LIST", help="Of float32,bfloat16; as it is stored if nothing is said.")
    ] = None,
    quantisation: Annotated[str, typer.Option(metavar="LIST", help="Of 8bit,4bit; or none.")] = "none",
    prompt_tokens: Annotated[str, typer.Option(metavar="LIST", help="Lengths of the prompts.")] = "128",
    new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, max=10**6, help="Tokens to decode behind each prompt.")
    ] = 32,
    batch: Annotated[str, typer.Option(metavar="LIST", help="Batch sizes, each combined with each length.")] = "1",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Runs of base and pruned that count.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the record as JSON to this file.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it into this file, a .png or .svg.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the benchmark as one HTML page to this file.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Let the checkpoint's own code run; prunecheck's needs no leave."),
    ] = False,
) -> None:
    """Measure what the pruned checkpoint CKPT saves, beside what its plan predicts.

    Disk, loads in fresh processes, memory, prefill, decoding and the KV cache, base and pruned by turns. Exit code 0:
    measured; 2: nothing could be. `prunecheck compare` compares two files that --json wrote.
    """
    from harness.bench.plot import require_plottable, write_plot
    from harness.report.files import require_writable, write_text
    from harness.subject.untrusted_files import checkpoint_directory
    from pruning import PrunePlan

    for path in (json_file, html_file):
        require_writable(path)
    require_plottable(plot_file)
    checkpoint = checkpoint_directory(checkpoint)
    meant = None if plan is None else PrunePlan.from_file(plan)

    from harness.models.options import benchmark_options, whole_numbers  # torch and transformers, which take seconds
    from harness.system.progress import count_progress

    options = benchmark_options(device_map=device_map, dtype=dtype, quantisation=quantisation)
    prompts, batches = whole_numbers("--prompt-tokens", prompt_tokens), whole_numbers("--batch", batch)

    from harness.bench.run import benchmark_checkpoint
    from harness.bench.view import print_benchmark

    with count_progress() as progress:
        benchmark = benchmark_checkpoint(
            checkpoint,
            base=base,
            plan=meant,
            prompt_tokens=prompts,
            new_tokens=new_tokens,
            batch=batches,
            repeats=repeats,
            trust_remote_code=trust_remote_code,
            progress=progress,
            **options,
        )
    print_benchmark(benchmark)
    if json_file is not None:
        write_text(json_file, json.dumps(benchmark.to_dict(), indent=2) + "\n")
    if plot_file is not None:
        write_plot(benchmark, plot_file)
    if html_file is not None:
        from harness.bench.page import benchmark_page

        write_text(html_file, benchmark_page(benchmark))
    if benchmark.is_empty:
        raise CannotRun("no way of loading could be measured; the reasons are above")
