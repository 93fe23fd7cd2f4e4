"""Proof that a pruned language model is the model that was meant: the public names of `pruning` and of `harness`.

Light to import: torch and transformers are loaded with the first function that needs them.
"""

from typing import TYPE_CHECKING, Any

import harness
import pruning
from pruning import __version__

if TYPE_CHECKING:
    from harness import (
        Benchmark,
        Bisection,
        CannotRun,
        Matrix,
        Report,
        Scan,
        Search,
        assert_cache_agrees,
        assert_logits_close,
        assert_model_sound,
        assert_same_logits,
        assert_sound,
        assert_stored_as_planned,
        benchmark_checkpoint,
        check_checkpoint,
        check_model,
        run_bisect,
        run_matrix,
        scan_checkpoint,
        search_plan,
    )
    from pruning import (
        CheckpointError,
        DestinationError,
        PlanError,
        PrunedQwen3Config,
        PrunedQwen3ForCausalLM,
        PrunePlan,
        PruneResult,
        PruningError,
        RefreshResult,
        SubLayer,
        audit_checkpoint,
        load_pruned,
        prune_checkpoint,
        prune_state_dict,
        refresh_checkpoint,
        removed_bytes,
    )

__all__ = [
    "Benchmark",
    "Bisection",
    "CannotRun",
    "CheckpointError",
    "DestinationError",
    "Matrix",
    "PlanError",
    "PrunePlan",
    "PruneResult",
    "PrunedQwen3Config",
    "PrunedQwen3ForCausalLM",
    "PruningError",
    "RefreshResult",
    "Report",
    "Scan",
    "Search",
    "SubLayer",
    "__version__",
    "assert_cache_agrees",
    "assert_logits_close",
    "assert_model_sound",
    "assert_same_logits",
    "assert_sound",
    "assert_stored_as_planned",
    "audit_checkpoint",
    "benchmark_checkpoint",
    "check_checkpoint",
    "check_model",
    "load_pruned",
    "prune_checkpoint",
    "prune_state_dict",
    "refresh_checkpoint",
    "removed_bytes",
    "run_bisect",
    "run_matrix",
    "scan_checkpoint",
    "search_plan",
]


def __getattr__(name: str) -> Any:
    for half in (pruning, harness):
        if name in half.__all__:
            return getattr(half, name)
    raise AttributeError(f"module 'prunecheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
