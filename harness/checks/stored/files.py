"""The files: complete, readable, index and shards consistent."""

from __future__ import annotations

from harness.checks.check import FaultFound, Numbers
from harness.subject.stored import not_in_index, unloaded_files
from harness.subject.subject import Subject


def files(subject: Subject) -> Numbers:
    """Every file that would be loaded is complete, and the index says where each tensor is."""
    stored, faults = subject.stored, list(subject.stored.faults)
    idle = unloaded_files(stored)
    # A shard that no entry names any more holds what is lost; what holds nothing of the model is somebody's own.
    lost = _expected(subject) - stored.tensors.keys()
    forgotten = {path: keys & lost for path, keys in idle.items() if keys & lost}
    # An index that is broken, or names what is not there, has its own fault.
    if forgotten and stored.index and not any(each.id == "shard-missing" for each in faults):
        keys = sorted(key for each in forgotten.values() for key in each)
        faults.insert(0, not_in_index(keys, {path.name for path in forgotten}))
    if faults:
        raise FaultFound(*faults)
    if idle:
        subject.findings.append(f"no weights are loaded from {', '.join(path.name for path in idle)}")
    return {"files": len(stored.files), "tensors": len(stored.tensors), "bytes": stored.bytes}


def _expected(subject: Subject) -> set[str]:
    try:
        return subject.expected_keys
    except ValueError:  # the check of the config says so
        return set()
