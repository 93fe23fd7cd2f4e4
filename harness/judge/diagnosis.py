"""From what every check found to the causes: one fault shows in many checks, and is told once.

A check that fails is a consequence if another one failed that its subject depends on: files hold keys, keys fill
parameters, parameters make logits, and logits text. What no failed check explains is a cause, so two faults that have
nothing to do with one another are both told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from harness.checks.explain.logits import FIRST_LAYER
from harness.checks.loaded.running import MATTERS_CACHED
from harness.report.outcomes import FoundFault

Found = Mapping[str, tuple[FoundFault, ...]]

_NOT_SEEN: Final = ("stored.plan", "stored.tied-head", "stored.manifest-bytes:named-but-not-stored")
_UNREADABLE: Final = ("stored.keys:keys-not-readable", *_NOT_SEEN)
_LOST: Final = (*_UNREADABLE, "stored.keys:kept-keys-lost")
_ANOTHER_FILE: Final = ("stored.keys", *_NOT_SEEN, "stored.base-bytes", "stored.manifest-bytes")

# Fault of what is stored, by its id -> checks of what is stored that fail because of it, or one fault of a check alone.
_STORED_CONSEQUENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "truncated-file": _UNREADABLE,
    "git-lfs-pointer": _UNREADABLE,
    "shard-missing": _UNREADABLE,
    "shard-not-in-index": _LOST,
    "no-weights": _LOST,
    "index-broken": (*_LOST, "stored.files:no-weights", "stored.files:shard-not-in-index"),
    "indexed-but-not-stored": _LOST,
    "stale-single-file": _ANOTHER_FILE,
    "stored-twice": _ANOTHER_FILE,
    "wrong-layer-count": (
        *_LOST, "stored.keys:unknown-keys", "stored.keys:pruned-keys-kept", "stored.keys:shape-mismatch",
        "stored.base-bytes", "stored.manifest-bytes",
    ),
    "prequantised-then-pruned": (
        "stored.keys", "stored.base-bytes:stored-in-another-dtype", "stored.values", "stored.plan",
        "stored.manifest-bytes:named-but-not-stored",
    ),
    "another-plan-carried-out": ("stored.keys",),
    "plan-not-carried-out": ("stored.keys",),
    "wrapper-prefix": ("stored.tied-head", "stored.plan", "stored.manifest-bytes:named-but-not-stored"),
    "keys-renamed": ("stored.tied-head", "stored.plan", "stored.manifest-bytes:named-but-not-stored"),
    "lm-head-lost": ("stored.manifest-bytes:named-but-not-stored",),
    "tie-word-embeddings-differs": ("stored.tied-head",),
    "stored-in-another-dtype": ("stored.manifest-bytes", "stored.config:dtype-differs", "stored.config:dtype-lost"),
    "bytes-differ": ("stored.manifest-bytes",),
    "bytes-differ-where-not-finite": ("stored.manifest-bytes",),
    "not-finite": (
        "stored.base-bytes:bytes-differ-where-not-finite", "stored.manifest-bytes:bytes-differ-where-not-finite",
    ),
    "shape-mismatch": ("stored.base-bytes", "stored.manifest-bytes"),
    "pruned-keys-kept": ("stored.plan",),
    "kept-keys-lost": ("stored.plan", "stored.tied-head", "stored.manifest-bytes:named-but-not-stored"),
}  # fmt: skip
# What the values of tensors cannot bring about in a loaded model.
_UNTOUCHED_BY_VALUES: Final = ("buffers", "placement", "quantised-modules")
# Families of what is stored that leave the loaded model as it should be, and what they do touch.
_HARMLESS_TO_THE_MODEL: Final[Mapping[str, tuple[str, ...]]] = {
    "tokenizer": ("text",), "offload": ("disk",), "precision": (),
}  # fmt: skip
_BEFORE_LOGITS: Final = ("load", "placement", "resident", "buffers", "repeatable", "called", "poison")
# Property of a loaded model -> the properties that it depends on.
_DEPENDS_ON: Final[Mapping[str, tuple[str, ...]]] = {
    "placement": ("load",),
    "quantised-modules": ("load",),
    "resident": ("load", "placement"),
    "buffers": (),
    "repeatable": ("load", "placement"),
    "called": ("load", "repeatable"),
    "poison": ("load", "resident", "repeatable", "called"),
    "two-loads": ("load", "resident", "buffers", "repeatable", "called", "poison"),
    "logits": (*_BEFORE_LOGITS, "two-loads", "quantised-modules"),
    "cache": (*_BEFORE_LOGITS, "two-loads", "logits"),
    "round-trip": ("load", "placement", "resident", "buffers", "repeatable", "called", "two-loads"),
    "save": ("load", "placement"),
    "text": (*_BEFORE_LOGITS, "two-loads", "logits", "cache"),
}


def diagnose(found: Found) -> tuple[FoundFault, ...]:
    """Return the faults that are causes, from cheap to dear to see; `found` are the faults of each check, in order.

    The first cause names, as evidence, the checks that failed as its consequence.
    """
    causes: dict[str, list[FoundFault]] = {}
    for check, faults in found.items():
        left = [fault for fault in faults if not _is_explained(check, fault, found)]
        if left:
            causes[check] = left
    told = _once(causes)
    if not told:  # each explains the other: what was seen first is told
        told = [fault for faults in list(found.values())[:1] for fault in faults]
    folded = [check for check in found if check not in causes]
    if told and folded:
        evidence = [*told[0].evidence, *_where(found, folded, told[0]), f"as a consequence {_summary(folded)}"]
        told[0] = replace(told[0], evidence=tuple(evidence))
    return tuple(told)


def _where(found: Found, folded: list[str], cause: FoundFault) -> list[str]:
    """Return what a consequence says of the first diverging layer, unless the cause says it itself."""
    lines = [line for check in folded for fault in found[check] for line in fault.evidence]
    said = any(line.startswith(FIRST_LAYER) for line in cause.evidence)
    return [] if said else [line for line in lines if line.startswith(FIRST_LAYER)][:1]


def _once(causes: Mapping[str, list[FoundFault]]) -> list[FoundFault]:
    """Return each cause once: the same fault shows in several modes with other numbers."""
    told: dict[tuple[str, str], FoundFault] = {}
    for check, faults in causes.items():
        stored = check.startswith("stored.")
        for fault in faults:
            told.setdefault((fault.family, fault.cause if stored else fault.id), fault)
    return list(told.values())


def _is_explained(check: str, fault: FoundFault, found: Found) -> bool:
    others = [(other, each) for other, faults in found.items() for each in faults if other != check]
    if check.startswith("stored."):
        if check == "stored.prune-again":
            return any(other.startswith("stored.") for other, _ in others)
        if fault.id == "plan-differs":  # two texts that differ, whatever is stored
            others = [(other, each) for other, each in others if each.id == "wrong-layer-count"]
        same = [(check, each) for each in found[check] if each is not fault and each.family == "files"]
        return any(
            {check, f"{check}:{fault.id}"} & set(_STORED_CONSEQUENCES.get(each.id, ()))
            for other, each in [*others, *same]
            if other.startswith("stored.") and other != "stored.prune-again"
        )
    mode, _, title = check.partition(".")
    name = title.partition(".")[0]
    for other, each in others:
        if other.startswith("stored."):
            if each.family in ("keys", "tied-head", "values") and name in _UNTOUCHED_BY_VALUES:
                continue
            # A generation config that transformers refuses keeps the model from loading.
            refused = each.id == "generation-config-refused"
            touched = None if refused else _HARMLESS_TO_THE_MODEL.get(each.family)
            if touched is None or name in touched or any(mode.startswith(place) for place in touched):
                return True
            continue
        other_mode, _, other_title = other.partition(".")
        other_name = other_title.partition(".")[0]
        if other_name == "load" and name == "called" and _says_nothing_about(fault, each):
            continue
        if fault.family == "cache" and not _explains_the_cache(other_name, each):
            continue
        if other_name in _DEPENDS_ON.get(name, ()) and (
            other_mode == mode or list(found).index(other) < list(found).index(check)
        ):
            return True
        # The same property in a mode before, or the same kind of property before in this mode.
        if other_name == name and list(found).index(other) < list(found).index(check):
            return True
    return False


def _says_nothing_about(what_runs: FoundFault, loaded: FoundFault) -> bool:
    """Whether a fault of a load leaves open what runs: a head, or a gate other than that of what is pruned and runs."""
    return loaded.family == "tied-head" or (loaded.family == "gate" and what_runs.id != "pruned-sub-layers-run")


def _explains_the_cache(check: str, cause: FoundFault) -> bool:
    """Whether a fault explains one of the cache, which is found by comparing the model with itself alone."""
    if check == "cache":
        return cause.family == "cache"
    return check == "repeatable" or cause.id == MATTERS_CACHED


def _summary(checks: list[str]) -> str:
    shown = ", ".join(checks[:3])
    return f"{len(checks)} more check(s) fail: {shown}{' ...' if len(checks) > 3 else ''}"
