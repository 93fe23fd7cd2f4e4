"""The record of a search: what went, step by step, and what each step cost. JSON is the truth, all else a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from harness.planning.scan.estimate import Estimate, estimate, estimate_text, perplexity_text
from harness.planning.scan.record import Window, require_one_a_window
from harness.report.notebook import NotebookRecord, Summary
from harness.report.schema import JsonRecord
from harness.report.terminal import counted
from pruning import PrunePlan

COLUMNS = ("step", "removed", "bytes left", "rise, nats per token")


@dataclass(frozen=True)
class Step:
    """`removed` went in this step, `plan` is all that is gone after it, both in the form of `PrunePlan.to_dict`.

    `kept_bytes` are those of the tensors that are left; `nll` is the mean negative log likelihood, in nats per token,
    one a window of text.
    """

    removed: Mapping[str, list[int]]
    plan: Mapping[str, list[int]]
    kept_bytes: int
    nll: tuple[float | None, ...]


@dataclass(frozen=True, repr=False)
class Search(JsonRecord, NotebookRecord):
    """A search for a plan.

    `pruned` is what the checkpoint lacked before, `layers` how many decoder layers it has, `bytes` those of its
    tensors, `mode` how it was loaded, `budget` what was asked for, by option. Plans hold what the search removed alone.
    """

    NAME: ClassVar = "search"
    KIND: ClassVar = "search"

    checkpoint: str
    pruned: Mapping[str, list[int]]
    layers: int
    bytes: int
    mode: str
    method: str
    width: int
    budget: Mapping[str, float]
    window_tokens: int
    windows: tuple[Window, ...]
    steps: tuple[Step, ...]
    environment: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("it has no steps")
        for plan in (self.pruned, *(each for step in self.steps for each in (step.removed, step.plan))):
            PrunePlan.from_dict(plan)
        require_one_a_window(self.windows, *(step.nll for step in self.steps))

    @property
    def plan(self) -> PrunePlan:
        """What was chosen."""
        return PrunePlan.from_dict(self.steps[-1].plan)

    def rise(self, step: Step) -> Estimate:
        """Return how much the negative log likelihood rose up to a step, in nats per token: mean and interval."""
        pairs = zip(step.nll, (window.nll for window in self.windows), strict=True)
        return estimate(tuple(None if after is None or full is None else after - full for after, full in pairs))

    def kept_share(self, step: Step) -> float:
        """Return which share of the bytes of all tensors is left after a step."""
        return step.kept_bytes / max(self.bytes, 1)

    def facts(self) -> list[tuple[str, str]]:
        """Return what was searched, on what, and what was chosen: names, and what they are."""
        texts = dict.fromkeys(window.text for window in self.windows)
        last = self.steps[-1]
        full = estimate(tuple(window.nll for window in self.windows))
        budget = " ".join(f"{option} {value:g}" for option, value in self.budget.items())
        sublayers = counted(len(self.plan.sublayers), "sub-layer")
        return [
            ("bytes left", f"{last.kept_bytes:,} of {self.bytes:,} ({self.kept_share(last):.1%})"),
            ("perplexity", perplexity_text(self.rise(last))),
            ("plan", f"{self.plan} ({sublayers})"),
            ("checkpoint", self.checkpoint),
            ("already pruned", str(PrunePlan.from_dict(self.pruned))),
            ("asked for", f"{budget}, {self.method}{f' of {self.width}' if self.method == 'beam' else ''}"),
            ("loaded as", self.mode),
            ("text", f"{counted(len(self.windows), 'window')} of {self.window_tokens} tokens: {', '.join(texts)}"),
            ("nothing removed", f"negative log likelihood {estimate_text(full)} nats per token"),
            ("rise", f"{estimate_text(self.rise(last))} nats per token"),
        ]

    def step_rows(self) -> list[tuple[str, ...]]:
        """Return a row a step, below the headings `COLUMNS`."""
        return [
            (
                str(number),
                str(PrunePlan.from_dict(step.removed)),
                f"{self.kept_share(step):.1%}",
                estimate_text(self.rise(step)),
            )
            for number, step in enumerate(self.steps, 1)
        ]

    def summary(self) -> Summary:
        """Return what people see first: what was chosen and what it costs; in HTML every step."""
        return Summary(f"{self.plan}", self.facts(), COLUMNS, self.step_rows())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a step: what went, bytes and their share that are left, and what it cost with its interval."""
        return [
            {
                "step": number,
                "removed": str(PrunePlan.from_dict(step.removed)),
                "kept_bytes": step.kept_bytes,
                "kept_share": self.kept_share(step),
                **{f"rise_{name}": value for name, value in asdict(self.rise(step)).items()},
            }
            for number, step in enumerate(self.steps, 1)
        ]

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has; the rises, which follow from it, are there for readers alone."""
        content = super().fields()
        for step, written in zip(self.steps, content["steps"], strict=True):
            written["rise"] = asdict(self.rise(step))
        return content
