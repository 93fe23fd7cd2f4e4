"""What base and pruned checkpoint cost on the disk."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.stored import StoredCheckpoint, unloaded_files
from harness.subject import Subject

from .record import Measurement, Prediction


def stored_costs(subject: Subject) -> tuple[Measurement, ...]:
    """Return the bytes of all files of weights, loaded or not, and of the tensors in them, without the headers.

    Raises PlanError for a plan that does not fit the base.
    """
    assert subject.base is not None
    prediction = (stored_bytes(subject),)
    files = [_files(stored) for stored in (subject.base, subject.stored)]
    sizes = [float(sum(path.stat().st_size for path in each)) for each in files]
    tensors = [float(sum(map(tensor_bytes, each))) for each in files]
    return (
        Measurement("weight files", "B", *((size,) for size in sizes), predictions=prediction),
        Measurement("tensors in them", "B", *((size,) for size in tensors), predictions=prediction),
    )


def stored_bytes(subject: Subject) -> Prediction:
    """Return the bytes of the base's tensors, and of those that the plan keeps; both in the base's dtype."""
    assert subject.base is not None
    size = sum(map(tensor_bytes, subject.base.files))
    return Prediction("bytes", size, size - subject.plan.removed_bytes(subject.base.root))


def tensor_bytes(path: Path) -> int:
    """Return the bytes of a safetensors file behind its header, whose size is its first eight bytes."""
    with path.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return path.stat().st_size - 8 - int(header)


def _files(stored: StoredCheckpoint) -> list[Path]:
    return [*stored.files, *unloaded_files(stored)]
