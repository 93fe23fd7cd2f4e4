"""The keys: exactly those that the plan predicts, nothing stored for what is pruned, the head where it belongs."""

from __future__ import annotations

import torch

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.errors import NotChecked
from harness.report.outcomes import FoundFault
from harness.subject.stored import EMBEDDING, HEAD, StoredTensor, canonical_key
from harness.subject.subject import Subject, absent_plan, is_under
from harness.subject.sublayer_keys import sublayer_of
from pruning.plan import KINDS

_PRUNE_AGAIN = "Prune the base again with prunecheck."


def keys(subject: Subject) -> Numbers:
    """The stored keys and shapes are exactly those of the unpruned model less the plan's."""
    if not subject.stored.tensors:
        raise NotChecked("no tensor could be read")
    try:
        expected = subject.expected_keys
    except ValueError as error:
        raise NotChecked(str(error)) from None
    stored = subject.stored.tensors
    found = set(stored) - {HEAD} if _head_is_optional(subject) else set(stored)
    missing, surplus = expected - found - ({HEAD} if _head_is_optional(subject) else set()), found - expected
    faults = _prefix_fault(missing, surplus, stored) or _renaming_fault(subject, missing, surplus)
    if not faults and (unstored := missing & subject.optional_keys):
        missing -= unstored
        subject.findings.append(f"{len(unstored)} norm(s) in front of pruned sub-layers are not stored")
    if not faults:
        faults = [*_missing_faults(subject, missing), *_surplus_faults(subject, surplus)]
        faults += _shape_faults(subject)
    if faults:
        raise FaultFound(*faults)
    return {"keys": len(stored)}


def tied_head(subject: Subject) -> Numbers:
    """A tied head is stored once, or equal to the embedding; an untied one is stored."""
    config, stored = subject.stored.config, subject.stored.tensors
    if config is None:
        raise NotChecked("there is no config.json to say whether the head is tied")
    if not config:
        raise NotChecked("config.json cannot be read, as the check of the files says")
    tied = bool(config.get("tie_word_embeddings", False))
    if not tied and HEAD not in stored and stored:
        base_has = subject.base is not None and HEAD in subject.base.tensors
        why = "the base stores one" if base_has else "tie_word_embeddings is not true in config.json"
        raise FaultFound(
            fault(
                "tied-head", "lm-head-lost",
                f"{HEAD} is not stored, though the head is not tied: it would be initialised at random",
                why, f"tie_word_embeddings={config.get('tie_word_embeddings')!r}",
                remedy=f"Store {HEAD} again, or set tie_word_embeddings to true if the base ties its head.",
            )
        )  # fmt: skip
    if tied and HEAD in stored and EMBEDDING in stored and not _equal(stored[HEAD], stored[EMBEDDING]):
        raise FaultFound(
            fault(
                "tied-head", "tie-flag-over-different-head",
                f"tie_word_embeddings is true, but {HEAD} and {EMBEDDING} are both stored and differ",
                f"shapes {list(stored[HEAD].shape)} and {list(stored[EMBEDDING].shape)}",
                remedy="Set tie_word_embeddings to false in config.json, as the base has it.",
            )
        )  # fmt: skip
    return {"tied": float(tied)}


def _equal(left: StoredTensor, right: StoredTensor) -> bool:
    return (left.dtype, left.shape) == (right.dtype, right.shape) and torch.equal(left.read(), right.read())


def _head_is_optional(subject: Subject) -> bool:
    """Whether the head may be stored or not: it is tied, and the other check looks at what is there."""
    return bool((subject.stored.config or subject.config).get("tie_word_embeddings", False))


def _prefix_fault(missing: set[str], surplus: set[str], stored: object) -> list[FoundFault]:
    """Return a fault if every surplus key is a missing one behind the same wrapper's prefix."""
    if not missing or not surplus:
        return []
    prefixes = set()
    for key in surplus:
        plain = key.removeprefix("model.")  # which canonical_key put in front of what it did not know
        ends = [name for name in missing if plain.endswith(name)]
        if not ends:
            return []
        prefixes.add(plain.removesuffix(max(ends, key=len)))
    if len(prefixes) != 1:
        return []
    (prefix,) = prefixes
    return [
        fault(
            "keys", "wrapper-prefix",
            f"{len(surplus)} keys carry the prefix {prefix!r} of a wrapper, so that none of them is loaded",
            f"first {min(surplus).removeprefix('model.')}",
            remedy=f"Rename the keys without {prefix!r}, or save the unwrapped model.",
        )
    ]  # fmt: skip


def _renaming_fault(subject: Subject, missing: set[str], surplus: set[str]) -> list[FoundFault]:
    """Return a fault if what is missing is stored under other names: as many tensors, of the same shapes."""
    unknown = {key for key in surplus if not is_under(key, subject.plan)}
    if not unknown or unknown != surplus:
        return []
    should = sorted(subject.unpruned_keys[key] for key in missing)
    if sorted(subject.stored.tensors[key].shape for key in unknown) != should:
        return []
    return [
        fault(
            "keys", "keys-renamed",
            f"{len(missing)} tensor(s) are stored under names that the model does not have, first {min(unknown)}",
            f"missing: {listed(missing)}", f"stored: {listed(unknown)}",
            remedy="Store them under the names of the base.",
        )
    ]  # fmt: skip


def _missing_faults(subject: Subject, missing: set[str]) -> list[FoundFault]:
    missing = {key for key in missing if key != HEAD or _head_is_optional(subject)}  # tied_head says so
    unreadable = _unreadable(subject, missing)
    faults = [
        fault(
            "keys", "keys-not-readable", f"{len(unreadable)} key(s) are in files that cannot be read",
            listed(unreadable), remedy="Copy the files again, or prune the base again.",
        )
    ] if unreadable else []  # fmt: skip
    missing -= unreadable
    if not missing:
        return faults
    whole = absent_plan(subject.stored, subject.base) - subject.plan
    parts = [key for key in missing if not is_under(key, whole)]
    evidence = [f"missing: {listed(missing)}"]
    if not whole.is_empty:
        evidence.append(f"whole sub-layers that the plan keeps are absent: {whole}")
    if parts:
        evidence.append("transformers initialises them at random")
    return [
        *faults,
        fault(
            "keys", "kept-keys-lost",
            f"{len(missing)} key(s) that the plan ({subject.plan}, from {subject.plan_source}) keeps are not stored",
            *evidence,
            remedy=f"{_PRUNE_AGAIN} If the plan is meant to be another, name it with --plan.",
        ),
    ]  # fmt: skip


def _unreadable(subject: Subject, missing: set[str]) -> set[str]:
    """Return the missing keys that the index has in files of which nothing could be read; without one, maybe all."""
    index = subject.stored.index
    if index is None:
        return missing if subject.stored.faults else set()
    readable = {tensor.file.name for tensor in subject.stored.tensors.values()}
    return missing & {canonical_key(key) for key, name in index.items() if name not in readable}


def _surplus_faults(subject: Subject, surplus: set[str]) -> list[FoundFault]:
    pruned = {key for key in surplus if is_under(key, subject.plan)}
    other = surplus - pruned
    faults = []
    if pruned:
        sublayers = {sublayer for key in pruned if (sublayer := sublayer_of(key)) is not None}
        counts = ", ".join(f"{sum(1 for sublayer in sublayers if sublayer.kind == each)} {each}" for each in KINDS)
        faults.append(
            fault(
                "keys", "pruned-keys-kept",
                f"{len(pruned)} key(s) of pruned sub-layers are stored ({counts}), though the plan is {subject.plan}",
                f"stored: {listed(pruned)}", *_random_evidence(subject, pruned),
                remedy=f"Remove them: {_PRUNE_AGAIN.lower()}",
            )
        )  # fmt: skip
    if other:
        faults.append(
            fault(
                "keys", "unknown-keys",
                f"{len(other)} stored key(s) belong to no part of the model",
                f"stored: {listed(other)}",
                remedy="Remove them, or save the model under the names of its class.",
            )
        )  # fmt: skip
    return faults


def _random_evidence(subject: Subject, pruned: set[str]) -> list[str]:
    if subject.base is None:
        return []
    both = [key for key in pruned if key in subject.base.tensors]
    differ = [key for key in both if not _equal(subject.stored.tensors[key], subject.base.tensors[key])]
    if not differ:
        return ["their bytes are the base's: nothing was deleted"]
    return [f"{len(differ)} of {len(both)} differ from the base's: random weights were saved back"]


def _shape_faults(subject: Subject) -> list[FoundFault]:
    shapes = dict(subject.unpruned_keys)
    differing = {
        key: (tensor.shape, shapes[key])
        for key, tensor in subject.stored.tensors.items()
        if key in shapes and tensor.shape != shapes[key]
    }
    if not differing:
        return []
    key, (got, should) = min(differing.items())
    return [
        fault(
            "keys", "shape-mismatch",
            f"{len(differing)} stored tensor(s) have another shape than the unpruned model's",
            f"{key} is {list(got)}, but should be {list(should)}",
            remedy=_PRUNE_AGAIN,
        )
    ]  # fmt: skip
