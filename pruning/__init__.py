"""Prune sub-layers of decoder layers out of checkpoints, and load what is left.

Light to import: torch and transformers are loaded when `load_pruned` or a model class is first used.
"""

__version__ = "0.1.0"

from typing import Any

from .audit import audit_checkpoint
from .checkpoint import PruneResult, prune_checkpoint
from .errors import CheckpointError, DestinationError, PlanError, PruningError
from .plan import PrunePlan
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
    "audit_checkpoint",
    "load_pruned",
    "prune_checkpoint",
    "prune_state_dict",
]

_HEAVY = {
    "load_pruned": "pruning.loader",
    "PrunedQwen3Config": "pruning.remote.configuration_pruned_qwen3",
    "PrunedQwen3ForCausalLM": "pruning.remote.modeling_pruned_qwen3",
}


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        from importlib import import_module

        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'pruning' has no attribute {name!r}")
