"""What one check came to, what a fault is, and what a verdict rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FAMILIES = (
    "files", "config", "class", "plan", "keys", "tied-head", "code", "residual", "gate", "buffers", "cache",
    "precision", "quantisation", "offload", "tokenizer", "padding", "adapter", "values", "unexplained",
)  # fmt: skip

Outcome = Literal["passed", "failed", "error", "undecided", "skipped"]
Verdict = Literal["sound", "faulty", "undecided"]

EXIT_CODES: Mapping[Verdict, int] = {"sound": 0, "faulty": 1, "undecided": 3}


@dataclass(frozen=True)
class FoundFault:
    """A fault of what is judged, in words for its owner.

    `family` is one of `FAMILIES`, `id` a short name of the fault, `cause` one sentence, `evidence`
    what was measured, `remedy` one sentence to act on.
    """

    family: str
    id: str
    cause: str
    evidence: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class CheckRecord:
    """What one check came to; `reason` says why it did not pass, `numbers` are what it measured.

    The outcome "error" is a crash of the check: `reason` is the last line of its `traceback`, which others do not have.
    """

    name: str
    outcome: Outcome
    reason: str | None
    seconds: float
    numbers: Mapping[str, int | float] = field(default_factory=dict)  # msgspec would read an int as a float
    traceback: str | None = None


def limited_number(numbers: Mapping[str, float]) -> str:
    """Return the name of the number that `allowed` is the limit of: by choice the relative one."""
    return "relative" if "relative" in numbers else "difference"


@dataclass(frozen=True)
class Coverage:
    """What a verdict rests on: `bytes` were compared with the "base", with the "manifest", or not at all (None)."""

    keys: bool
    bytes: Literal["base", "manifest"] | None
    logits: bool
    partial_allowed: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether keys, bytes and logits were all checked."""
        return self.keys and self.bytes is not None and self.logits
