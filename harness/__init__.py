"""Judges pruned models: are they what their plan says? And measures them: what does the plan save, and what matters?

Light to import: torch and transformers are loaded with the first function that needs them.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench.record import Benchmark
    from .bench.run import benchmark_checkpoint
    from .errors import CannotRun
    from .judge.judge import check_checkpoint, check_model
    from .planning.scan.record import Scan
    from .planning.scan.run import scan_checkpoint
    from .planning.search.record import Search
    from .planning.search.run import search_plan
    from .releases.bisect import run_bisect
    from .releases.matrix import run_matrix
    from .releases.record import Bisection, Matrix
    from .report.report import Report
    from .testing.assertions import (
        assert_cache_agrees,
        assert_logits_close,
        assert_model_sound,
        assert_same_logits,
        assert_sound,
        assert_stored_as_planned,
    )

__all__ = [
    "Benchmark",
    "Bisection",
    "CannotRun",
    "Matrix",
    "Report",
    "Scan",
    "Search",
    "assert_cache_agrees",
    "assert_logits_close",
    "assert_model_sound",
    "assert_same_logits",
    "assert_sound",
    "assert_stored_as_planned",
    "benchmark_checkpoint",
    "check_checkpoint",
    "check_model",
    "run_bisect",
    "run_matrix",
    "scan_checkpoint",
    "search_plan",
]

# Read when torch loads its OpenMP library: threads that wait for one another on a busy machine would spin, and take the
# very CPUs that the others need. Here, since every way in imports this package before torch; processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "check_checkpoint": "harness.judge.judge",
    "check_model": "harness.judge.judge",
    "Report": "harness.report.report",
    "benchmark_checkpoint": "harness.bench.run",
    "Benchmark": "harness.bench.record",
    "scan_checkpoint": "harness.planning.scan.run",
    "Scan": "harness.planning.scan.record",
    "search_plan": "harness.planning.search.run",
    "Search": "harness.planning.search.record",
    "run_matrix": "harness.releases.matrix",
    "Matrix": "harness.releases.record",
    "run_bisect": "harness.releases.bisect",
    "Bisection": "harness.releases.record",
    "CannotRun": "harness.errors",
    "assert_cache_agrees": "harness.testing.assertions",
    "assert_logits_close": "harness.testing.assertions",
    "assert_model_sound": "harness.testing.assertions",
    "assert_same_logits": "harness.testing.assertions",
    "assert_sound": "harness.testing.assertions",
    "assert_stored_as_planned": "harness.testing.assertions",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
