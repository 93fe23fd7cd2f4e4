"""The command `prunecheck compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Quiet
from .output import Output


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="What `check --json` or `bench --json` wrote.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="A later one, to compare with it.")],
    quiet: Quiet = False,
) -> None:
    """Say what changed between two reports, or two benchmarks.

    They may be of two versions of a library, or of two plans. Exit code 0: nothing got worse; 1: the verdict, a check,
    or a gain of pruning did; 2: a file is none of these. A check that crashes now got worse.
    """
    from harness.bench.record import Benchmark
    from harness.report.files import read_record

    output = Output(quiet=quiet)
    if Benchmark.is_in(read_record(before)) or Benchmark.is_in(read_record(after)):
        from harness.bench.comparison import compare_benchmarks, print_benchmark_comparison

        costs = compare_benchmarks(Benchmark.from_file(before), Benchmark.from_file(after))
        output.show(lambda: print_benchmark_comparison(costs), _verdict(costs.is_regression))
        raise typer.Exit(1 if costs.is_regression else 0)
    from harness.report.comparison import compare_reports
    from harness.report.comparison_view import print_comparison
    from harness.report.report import Report

    comparison = compare_reports(Report.from_file(before), Report.from_file(after))
    output.show(lambda: print_comparison(comparison), _verdict(comparison.is_regression))
    raise typer.Exit(1 if comparison.is_regression else 0)


def _verdict(is_regression: bool) -> str:
    return "regression: something got worse" if is_regression else "no regression: nothing got worse"
