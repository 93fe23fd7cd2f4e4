"""Judges pruned models: are they what their plan says? And measures them: what does the plan save, and what matters?

Light to import: torch and transformers are loaded with the first function that needs them.
"""

from typing import Any

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

__all__ = list(_HOMES)  # the names are those of the table


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
