"""The command `prunecheck bench`. Light to import: the work and what it needs is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import CannotRun

from .options import (
    Checkpoint,
    DeviceMaps,
    Dtypes,
    HtmlFile,
    JsonFile,
    PlanFile,
    Quantisations,
    Quiet,
    Revision,
    TrustRemoteCode,
)
from .output import Output


def bench(
    checkpoint: Checkpoint,
    base: Annotated[
        str, typer.Option("--base", metavar="SRC", help="The unpruned checkpoint: a directory, or a hub id.")
    ],
    revision: Revision = None,
    plan: PlanFile = None,
    device_map: DeviceMaps = "plain",
    dtype: Dtypes = None,
    quantisation: Quantisations = "none",
    prompt_tokens: Annotated[str, typer.Option(metavar="LIST", help="Lengths of the prompts.")] = "128",
    new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, max=10**6, help="Tokens to decode behind each prompt.")
    ] = 32,
    batch: Annotated[str, typer.Option(metavar="LIST", help="Batch sizes, each combined with each length.")] = "1",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Runs of base and pruned that count.")] = 5,
    json_file: JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw it into this file, a .png or .svg.")
    ] = None,
    html_file: HtmlFile = None,
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Measure what CKPT saves, beside what its plan predicts.

    Disk, loads in fresh processes, memory, prefill, decoding and the KV cache, base and pruned by turns. Exit code 0:
    measured; 2: nothing could be. `prunecheck compare` compares two files that --json wrote.
    """
    from harness.bench.plot import require_plottable, write_plot
    from harness.subject.untrusted_files import checkpoint_directory
    from harness.system.requirements import require_libraries
    from pruning import PrunePlan

    from .hub import source_at

    output = Output(json_file, quiet)
    output.require_writable(html_file)
    require_plottable(plot_file)
    checkpoint = checkpoint_directory(checkpoint)
    base = source_at(base, revision)
    meant = None if plan is None else PrunePlan.from_file(plan)
    require_libraries()

    from harness.models.options import benchmark_options, whole_numbers  # torch and transformers, which take seconds

    options = benchmark_options(device_map=device_map or "plain", dtype=dtype, quantisation=quantisation or "none")
    prompts, batches = whole_numbers("--prompt-tokens", prompt_tokens), whole_numbers("--batch", batch)

    from harness.bench.page import benchmark_page
    from harness.bench.run import benchmark_checkpoint
    from harness.bench.view import print_benchmark

    with output.progress() as progress:
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
    output.show(lambda: print_benchmark(benchmark))
    output.write_record(benchmark.to_dict())
    if plot_file is not None:
        write_plot(benchmark, plot_file)
    output.write(html_file, lambda: benchmark_page(benchmark))
    if benchmark.is_empty:
        raise CannotRun("no way of loading could be measured; the reasons are above")
