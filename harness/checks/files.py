"""The files: complete, readable, index and shards consistent."""

from __future__ import annotations

from harness.subject import Subject

from .check import FaultFound, Numbers


def files(subject: Subject) -> Numbers:
    """Every file that would be loaded is complete, and the index says where each tensor is."""
    if subject.stored.faults:
        raise FaultFound(*subject.stored.faults)
    return {"files": len(subject.stored.files), "tensors": len(subject.stored.tensors), "bytes": subject.stored.bytes}
