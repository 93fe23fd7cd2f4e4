"""The errors that `pruning` raises: one line each, naming the thing, its value and the remedy."""


class PruningError(Exception):
    """Base of every error that `pruning` raises on purpose; its text is one line, meant for a person."""


class PlanError(PruningError, ValueError):
    """A prune plan that cannot be meant: an index out of range, negative, named twice or not an integer."""


class CheckpointError(PruningError):
    """A checkpoint that is not what it must be: missing, truncated, inconsistent or of an unknown family."""


class DestinationError(PruningError):
    """A destination that cannot be written: it exists, lies inside the source, or the device is full."""
