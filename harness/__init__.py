"""Judges pruned models: are they what their plan says? And measures them: what does the plan save, and what matters?

Light to import: torch and transformers are loaded with the first function that needs them.
"""

from typing import Any

_HOMES = {
    "check_checkpoint": "harness.judge",
    "check_model": "harness.judge",
    "Report": "harness.reporting.report",
    "benchmark_checkpoint": "harness.bench.run",
    "Benchmark": "harness.bench.record",
    "scan_checkpoint": "harness.scan.run",
    "Scan": "harness.scan.record",
    "search_plan": "harness.search.run",
    "Search": "harness.search.record",
    "run_matrix": "harness.releases.matrix",
    "Matrix": "harness.releases.record",
    "run_bisect": "harness.releases.bisect",
    "Bisection": "harness.releases.record",
    "CannotRun": "harness.errors",
    "assert_cache_agrees": "harness.assertions",
    "assert_logits_close": "harness.assertions",
    "assert_model_sound": "harness.assertions",
    "assert_same_logits": "harness.assertions",
    "assert_sound": "harness.assertions",
    "assert_stored_as_planned": "harness.assertions",
}

__all__ = list(_HOMES)  # the names are those of the table


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
