"""The checks of a report by where they looked: at what is on the disk, or at one loading mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from .outcomes import CheckRecord, Outcome
from .terminal import and_more, shortened

STORED = "stored"
# Of a failure, enough to know it by; the fault tells it in full.
LONGEST_REASON = 200
_ALWAYS_COUNTED: tuple[Outcome, ...] = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Group:
    """The checks of one loading mode, or of what is stored; `name` is the part of their names before the first dot."""

    name: str
    checks: tuple[CheckRecord, ...]

    @property
    def title(self) -> str:
        """How people are told of it."""
        return group_title(self.name)

    @property
    def seconds(self) -> float:
        """The time that its checks took together."""
        return sum(check.seconds for check in self.checks)

    @property
    def is_skipped_mode(self) -> bool:
        """Whether it is a loading mode of which nothing was checked."""
        return self.name != STORED and self.count("skipped") == len(self.checks)

    def count(self, outcome: Outcome) -> int:
        """Return how many of its checks came to an outcome."""
        return len(self.of(outcome))

    def of(self, outcome: Outcome) -> list[CheckRecord]:
        """Return its checks of an outcome."""
        return [check for check in self.checks if check.outcome == outcome]


def counted_outcomes(checks: Sequence[CheckRecord]) -> tuple[Outcome, ...]:
    """Return the outcomes that a table of checks counts: crashes, and what is undecided, where there is any."""
    found = {check.outcome for check in checks}
    return tuple(outcome for outcome in get_args(Outcome) if outcome in found or outcome in _ALWAYS_COUNTED)


def group_title(name: str) -> str:
    """Return how people are told of a group."""
    return "on disk" if name == STORED else name


def group_and_property(name: str) -> tuple[str, str]:
    """Return the two parts of a check's name: `("plain-float32", "cache.dynamic.beam")`."""
    group, _, checked = name.partition(".")
    return group, checked or name


def groups(checks: Sequence[CheckRecord]) -> list[Group]:
    """Return the groups of a report's checks, in the order in which it has their first ones."""
    found: dict[str, list[CheckRecord]] = {}
    for check in checks:
        found.setdefault(group_and_property(check.name)[0], []).append(check)
    return [Group(name, tuple(checks)) for name, checks in found.items()]


def by_reason(checks: Iterable[CheckRecord]) -> list[tuple[str, str]]:
    """Return a row for each reason, with the first of its checks and how many more there are."""
    alike: dict[str, list[CheckRecord]] = {}
    for check in checks:
        alike.setdefault(reason_of(check), []).append(check)
    return [(and_more(each[0].name, len(each)), shortened(reason, LONGEST_REASON)) for reason, each in alike.items()]


def reason_of(check: CheckRecord) -> str:
    """Return why a check did not pass."""
    return check.reason or "no reason was given"
