"""The bytes: every kept tensor's are the base's, or have the manifest's checksum; and the values are numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.errors import NotChecked
from harness.report.outcomes import FoundFault
from harness.subject.stored import HEAD, StoredTensor, canonical_key, tensors_file_by_file
from harness.subject.subject import MANIFEST_FILE, Subject, is_under

_INTEGERS = ("U8", "I8", "I16", "I32", "I64", "BOOL")


def base_bytes(subject: Subject) -> Numbers:
    """Every kept tensor has the base's dtype, shape and bytes."""
    if subject.base is None:
        raise NotChecked("without --base there is nothing to compare the bytes with")
    base = subject.base.tensors
    common = {key: tensor for key, tensor in subject.stored.tensors.items() if key in base}
    kept = {key: tensor for key, tensor in common.items() if not is_under(key, subject.plan)}
    if not kept:
        raise NotChecked("no stored key is one of the base's")
    types = {key for key, tensor in kept.items() if tensor.dtype != base[key].dtype}
    differing = set()
    for key, values in tensors_file_by_file(kept):
        if key not in types and kept[key].shape == base[key].shape and not _same_bytes(values, base[key]):
            differing.add(key)
    faults = []
    if types:
        key = min(types)
        faults.append(
            fault(
                "precision", "stored-in-another-dtype",
                f"{len(types)} of {len(kept)} kept tensors are stored in another dtype than the base's",
                f"{key} is {kept[key].dtype}, but should be {base[key].dtype}",
                remedy="Prune the base again with prunecheck, which copies bytes as they are.",
            )
        )  # fmt: skip
    if differing:
        faults.append(_differing(subject, differing, len(kept), "the base's"))
    if faults:
        raise FaultFound(*faults)
    return {"tensors": len(kept), "bytes": sum(path.stat().st_size for path in {t.file for t in kept.values()})}


def manifest_bytes(subject: Subject) -> Numbers:
    """Every kept tensor has the sha256 that the manifest names for it."""
    if subject.manifest is None and (subject.root / MANIFEST_FILE).exists():
        raise FaultFound(
            fault(
                "files", "manifest-broken", f"{MANIFEST_FILE} is there, and is no manifest",
                remedy="Prune the base again: the manifest says which bytes belong to the checkpoint.",
            )
        )  # fmt: skip
    if subject.manifest is None:
        raise NotChecked(f"there is no {MANIFEST_FILE} to compare the bytes with")
    kept = subject.manifest["kept"]
    expected = {key: entry["sha256"] for key, entry in kept.items() if isinstance(entry, dict) and "sha256" in entry}
    by_name = {tensor.key: tensor for tensor in subject.stored.tensors.values()}
    compared = {key: tensor for key, tensor in by_name.items() if key in expected}
    if not compared:
        raise NotChecked(f"{MANIFEST_FILE} names no checksum of a stored tensor")
    differing = {key for key, values in tensors_file_by_file(compared) if _sha256(values) != expected[key]}
    faults = []
    there = subject.stored.tensors.keys() | subject.optional_keys
    lost = {key for key in kept if canonical_key(key) not in there}
    if lost and subject.base is None:  # beside a base, the check of the keys says it better
        faults.append(_lost(lost))
    if differing:
        faults.append(_differing(subject, differing, len(compared), f"{MANIFEST_FILE}'s"))
    if faults:
        raise FaultFound(*faults)
    return {"tensors": len(compared)}


def finite_values(subject: Subject) -> Numbers:
    """No stored tensor holds NaN or infinity; all-zero tensors and denormal numbers are findings."""
    broken: dict[str, int] = {}
    zero, denormal = [], []
    looked_at = 0
    for key, values in _floating(subject):
        looked_at += 1
        finite = torch.isfinite(values)
        if not finite.all():
            broken[key] = int((~finite).sum())
        elif not values.any():
            zero.append(key)
        elif bool(((values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)).any()):
            denormal.append(key)
    if broken:
        key = min(broken)
        base_too = subject.base is not None and key in subject.base.tensors
        base_too = base_too and not torch.isfinite(subject.base.tensors[key].read()).all()  # type: ignore[union-attr]
        raise FaultFound(
            fault(
                "values", "not-finite",
                f"{len(broken)} stored tensor(s) hold NaN or infinity, first {key}",
                f"{broken[key]} elements of {key}", *(["the base holds them too"] if base_too else []),
                remedy="Take the tensors from a sound checkpoint: prune a base whose values are finite.",
            )
        )  # fmt: skip
    if zero:
        subject.findings.append(f"{len(zero)} kept tensor(s) are all zero: {listed(zero)}")
    if denormal:
        subject.findings.append(f"{len(denormal)} kept tensor(s) hold denormal numbers: {listed(denormal)}")
    return {"tensors": looked_at, "zero": len(zero), "denormal": len(denormal)}


def _floating(subject: Subject) -> Iterator[tuple[str, torch.Tensor]]:
    floating = {key: tensor for key, tensor in subject.stored.tensors.items() if tensor.dtype not in _INTEGERS}
    if not floating:
        raise NotChecked("no tensor of floating-point numbers could be read")
    for key, values in tensors_file_by_file(floating):
        yield key, values if values.dtype in (torch.float32, torch.bfloat16, torch.float16) else values.float()


def _same_bytes(values: torch.Tensor, other: StoredTensor) -> bool:
    return torch.equal(as_bytes(values), as_bytes(other.read()))


def as_bytes(values: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, flat."""
    return values.contiguous().reshape(-1).view(torch.uint8)


def _sha256(values: torch.Tensor) -> str:
    return hashlib.sha256(as_bytes(values).numpy().data).hexdigest()


def _lost(keys: set[str]) -> FoundFault:
    return fault(
        "tied-head" if keys == {HEAD} else "keys", "named-but-not-stored",
        f"{len(keys)} tensor(s) that {MANIFEST_FILE} names are not stored", listed(keys),
        remedy="Prune the base again with prunecheck.",
    )  # fmt: skip


def _differing(subject: Subject, differing: set[str], total: int, whose: str) -> FoundFault:
    family = "tied-head" if differing == {HEAD} else "keys"
    evidence = [listed(differing)]
    broken = all(not bool(torch.isfinite(subject.stored.tensors[key].read().float()).all()) for key in differing)
    name = "bytes-differ-where-not-finite" if broken else "bytes-differ"
    if subject.base is not None and whose == "the base's":
        key = min(differing)
        got, should = subject.stored.tensors[key].read(), subject.base.tensors[key].read()
        if got.shape == should.shape:
            share = float((got.float() != should.float()).float().mean())
            evidence.append(f"{share:.1%} of the elements of {key} differ")
    return fault(
        family, name,
        f"the bytes of {len(differing)} of {total} kept tensors are not {whose}",
        *evidence,
        remedy="Prune the base again with prunecheck; if another base was meant, name it with --base.",
    )  # fmt: skip
