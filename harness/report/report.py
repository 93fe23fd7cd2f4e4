"""The record of a judgement: what was checked, what was found, and the verdict. JSON is the truth, all else a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from .groups import by_reason, counted_outcomes, groups
from .notebook import NotebookRecord, Summary, plan_text
from .outcomes import CheckRecord, Coverage, FoundFault, Verdict
from .schema import JsonRecord

PARTS: dict[str, Callable[[str], bool]] = {
    "keys": lambda name: name == "stored.keys",
    "bytes": lambda name: name in ("stored.base-bytes", "stored.manifest-bytes"),
    "logits": lambda name: ".logits.identity." in name,
}
"""What a verdict rests on, and whether a check of a name looks at it, as harness/judge/judge.py counts them."""


@dataclass(frozen=True, repr=False)
class Report(JsonRecord, NotebookRecord):
    """A judgement. `plan` is the plan that was meant; `environment` says where, and with what, it was judged."""

    NAME: ClassVar = "report"
    SCHEMA: ClassVar = 2
    # 0.1.0 wrote the first: it has no tracebacks, and neither of the outcomes "error" and "undecided".
    READABLE: ClassVar = (1, 2)

    checkpoint: str
    base: str | None
    plan: Mapping[str, list[int]]
    checks: tuple[CheckRecord, ...]
    coverage: Coverage
    faults: tuple[FoundFault, ...]
    findings: tuple[str, ...]
    environment: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """`"faulty"` if a check failed, `"sound"` if enough was checked and nothing crashed, else `"undecided"`."""
        outcomes = {check.outcome for check in self.checks}
        if self.faults or "failed" in outcomes:
            return "faulty"
        if "error" in outcomes:
            return "undecided"
        if self.coverage.partial_allowed:
            return "sound" if self.coverage.is_complete or "passed" in outcomes else "undecided"
        return "sound" if self.coverage.is_complete and "undecided" not in outcomes else "undecided"

    @property
    def unchecked_parts(self) -> list[str]:
        """What of keys, bytes and logits was not checked."""
        checked = {
            "keys": self.coverage.keys,
            "bytes": self.coverage.bytes is not None,
            "logits": self.coverage.logits,
        }
        return [part for part in PARTS if not checked[part]]

    @property
    def verdict_text(self) -> str:
        """The verdict as a sentence: `sound: the pruned checkpoint is the model that was meant`."""
        unchecked, count = " and ".join(self.unchecked_parts), len(self.checks)
        outcomes = Counter(check.outcome for check in self.checks)
        crashed = [f"{outcomes['error']} of {count} checks crashed"] if outcomes["error"] else []
        undecided = [f"{outcomes['undecided']} of {count} checks could not decide"] if outcomes["undecided"] else []
        if self.verdict == "faulty":
            return "; ".join([f"faulty: {outcomes['failed']} of {count} checks failed", *crashed])
        if self.verdict == "undecided":
            parts = [f"{unchecked} could not be checked"] if unchecked else []
            return f"undecided: {'; '.join([*crashed, *parts, *undecided])}"
        sound = "the pruned checkpoint is the model that was meant"
        parts = [f"{unchecked} were not checked"] if unchecked else []
        if not (parts or undecided):
            return f"sound: {sound}"
        return "; ".join([f"sound: as far as it was checked, {sound}", *parts, *undecided])

    @property
    def crashed_rows(self) -> list[tuple[str, str]]:
        """The checks that crashed, each with the last line of its traceback, a row for each such line."""
        return by_reason(check for check in self.checks if check.outcome == "error")

    def summary(self) -> Summary:
        """Return what people see first: verdict, plan, counts, faults, findings; in HTML the groups, too."""
        counts, outcomes = Counter(check.outcome for check in self.checks), counted_outcomes(self.checks)
        facts = [
            ("checkpoint", self.checkpoint),
            ("base", self.base or "none was given"),
            ("plan", plan_text(self.plan)),
            ("checks", ", ".join(f"{counts[outcome]} {outcome}" for outcome in outcomes)),
            *((f"crashed: {name}", reason) for name, reason in self.crashed_rows),
        ]
        for fault in self.faults:
            facts += [(f"fault: {fault.family}", fault.cause), ("remedy", fault.remedy)]
        facts += [("finding", finding) for finding in self.findings]
        rows = [
            [group.title, *(str(group.count(outcome)) for outcome in outcomes), f"{group.seconds:.1f}"]
            for group in groups(self.checks)
        ]
        return Summary(self.verdict_text, facts, ("checks", *outcomes, "seconds"), rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each check, the fields of its `CheckRecord`."""
        return [asdict(check) for check in self.checks]

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has, with the verdict, which follows from it."""
        return {"verdict": self.verdict, **super().fields()}
