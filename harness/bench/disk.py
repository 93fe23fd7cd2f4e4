"""What base and pruned checkpoint cost on the disk."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from harness.subject.stored import StoredCheckpoint, unloaded_files
from harness.subject.subject import Subject
from pruning import removed_bytes

from .measurement import Measurement, Prediction, counted


def stored_costs(subject: Subject) -> tuple[Measurement, ...]:
    """Return the bytes of all files of weights, loaded or not, and of the tensors in them, without the headers.

    Raises PlanError for a plan that does not fit the base.
    """
    assert subject.base is not None
    prediction = stored_bytes(subject)
    base, pruned = _files(subject.base), _files(subject.stored)
    return (
        counted("weight files", _file_bytes(base), _file_bytes(pruned), prediction),
        counted("tensors in them", _tensor_bytes(base), _tensor_bytes(pruned), prediction),
    )


def stored_bytes(subject: Subject) -> Prediction:
    """Return the bytes of the base's tensors, and of those that the plan keeps; both in the base's dtype."""
    assert subject.base is not None
    size = _tensor_bytes(subject.base.files)
    return Prediction("bytes", size, size - removed_bytes(subject.base.root, subject.plan))


def _files(stored: StoredCheckpoint) -> list[Path]:
    return [*stored.files, *unloaded_files(stored)]


def _file_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _tensor_bytes(paths: Iterable[Path]) -> int:
    """Return the bytes of safetensors files behind their headers, whose size their first eight bytes say."""
    total = 0
    for path in paths:
        with path.open("rb") as file:
            (header,) = struct.unpack("<Q", file.read(8))
        total += path.stat().st_size - 8 - int(header)
    return total
