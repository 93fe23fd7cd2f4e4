"""What a check is: a function that returns numbers, or raises what it found or why it could not look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.models.modes import LoadingMode
from harness.report.outcomes import FoundFault

Numbers = Mapping[str, float] | None


class FaultFound(AssertionError):
    """A check found what should not be: one fault, or several that have nothing to do with one another."""

    def __init__(self, *faults: FoundFault, numbers: Numbers = None) -> None:
        self.faults = faults
        self.numbers = dict(numbers or {})
        lines = (f"{fault.cause} ({'; '.join(fault.evidence)})" if fault.evidence else fault.cause for fault in faults)
        super().__init__("; ".join(lines))


@dataclass(frozen=True)
class Check:
    """A property by name. `run` takes a Subject if `mode` is None, else a Session of that loading mode."""

    title: str
    run: Callable[[Any], Numbers]
    mode: LoadingMode | None = None

    @property
    def name(self) -> str:
        """How reports and test ids name it: `stored.keys`, `plain-float32.cache.dynamic.beam`."""
        return self.title if self.mode is None else f"{self.mode.name}.{self.title}"


def fault(family: str, name: str, cause: str, *evidence: str, remedy: str) -> FoundFault:
    """Return a fault; see FoundFault."""
    return FoundFault(family=family, id=name, cause=cause, evidence=evidence, remedy=remedy)


def listed(names: list[str] | set[str]) -> str:
    """Return the first few of a collection of names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
