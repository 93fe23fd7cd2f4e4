"""Prune sub-layers of decoder layers out of checkpoints, and load what is left.

Light to import: each name is loaded when it is first used, and only the models need torch and transformers.
"""

__version__ = "0.2.0"

from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, DestinationError, PlanError, PruningError
from .plan import PrunePlan, SubLayer

if TYPE_CHECKING:
    from pruning.remote.configuration_pruned_qwen3 import PrunedQwen3Config
    from pruning.remote.modeling_pruned_qwen3 import PrunedQwen3ForCausalLM

    from .audit import audit_checkpoint
    from .files.source import removed_bytes
    from .load import load_pruned
    from .prune import PruneResult, prune_checkpoint
    from .refresh import RefreshResult, refresh_checkpoint
    from .state_dict import prune_state_dict

__all__ = [
    "CheckpointError",
    "DestinationError",
    "PlanError",
    "PrunePlan",
    "PruneResult",
    "PrunedQwen3Config",
    "PrunedQwen3ForCausalLM",
    "PruningError",
    "RefreshResult",
    "SubLayer",
    "audit_checkpoint",
    "load_pruned",
    "prune_checkpoint",
    "prune_state_dict",
    "refresh_checkpoint",
    "removed_bytes",
]

_HOMES = {
    "audit_checkpoint": "pruning.audit",
    "removed_bytes": "pruning.files.source",
    "PruneResult": "pruning.prune",
    "prune_checkpoint": "pruning.prune",
    "prune_state_dict": "pruning.state_dict",
    "load_pruned": "pruning.load",
    "RefreshResult": "pruning.refresh",
    "refresh_checkpoint": "pruning.refresh",
    "PrunedQwen3Config": "pruning.remote.configuration_pruned_qwen3",
    "PrunedQwen3ForCausalLM": "pruning.remote.modeling_pruned_qwen3",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pruning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
