"""A revision of a hub id, for the commands whose work takes a directory."""

from __future__ import annotations

from harness.errors import CannotRun


def source_at(source: str, revision: str | None) -> str:
    """Return a source as it was typed, or the directory of the revision of a hub id; raises CheckpointError."""
    from pruning.files.source import find_checkpoint

    return source if revision is None else str(find_checkpoint(source, revision))


def base_at(base: str | None, revision: str | None) -> str | None:
    """Return the base likewise; raises CannotRun for a revision of nothing, CheckpointError as `source_at` does."""
    if base is None:
        if revision is not None:
            raise CannotRun(f"--revision {revision} is one of --base: name the base's hub id, too")
        return None
    return source_at(base, revision)
