"""The record of a search: what went, step by step, and what each step cost. JSON is the truth, all else a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeGuard

from harness.errors import CannotRun
from harness.planning.scan.record import Estimate, Window, estimate, of_type, read_values, read_window
from harness.report.notebook import NotebookRecord, Summary
from harness.report.report import read_record
from pruning import PrunePlan, PruningError

SCHEMA = 1
KIND: Final = "search"
"""What `kind` says in the JSON."""


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
class Search(NotebookRecord):
    """A search for a plan.

    `pruned` is what the checkpoint lacked before, `layers` how many decoder layers it has, `bytes` those of its
    tensors, `mode` how it was loaded, `budget` what was asked for, by option. Plans hold what the search removed alone.
    """

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

    def summary(self) -> Summary:
        """Return what people see first."""
        from .view import search_summary  # which imports this module

        return search_summary(self)

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

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it; the rises, which follow from it, are there for readers alone."""
        content = asdict(self)
        for step, written in zip(self.steps, content["steps"], strict=True):
            written["rise"] = asdict(self.rise(step))
        return {"schema": SCHEMA, "kind": KIND, **content}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        if not is_search(content) or content["schema"] != SCHEMA:
            raise ValueError(f"not a search of schema {SCHEMA}")
        try:
            windows = tuple(map(read_window, content["windows"]))
            search = cls(
                checkpoint=of_type(content["checkpoint"], str),
                pruned=PrunePlan.from_dict(content["pruned"]).to_dict(),
                layers=of_type(content["layers"], int),
                bytes=of_type(content["bytes"], int),
                mode=of_type(content["mode"], str),
                method=of_type(content["method"], str),
                width=of_type(content["width"], int),
                budget={of_type(name, str): of_type(value, (int, float)) for name, value in content["budget"].items()},
                window_tokens=of_type(content["window_tokens"], int),
                windows=windows,
                steps=tuple(_step(step, len(windows)) for step in content["steps"]),
                environment=of_type(content["environment"], Mapping),
            )
            if not search.steps:
                raise ValueError("it has no steps")
        except KeyError as error:
            raise ValueError(f"not a search of schema {SCHEMA}: it has no {error}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, PruningError) as error:
            raise ValueError(f"not a search of schema {SCHEMA}: {error}") from None
        return search

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a search's JSON file; raises CannotRun, naming it."""
        try:
            return cls.from_dict(read_record(path, "search"))
        except ValueError as error:
            raise CannotRun(f"{path} is no search of prunecheck: {error}") from None


def is_search(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether what a JSON file holds says of itself that it is a search."""
    return isinstance(content, Mapping) and content.get("kind") == KIND and "schema" in content


def _step(content: Mapping[str, Any], windows: int) -> Step:
    return Step(
        removed=PrunePlan.from_dict(content["removed"]).to_dict(),
        plan=PrunePlan.from_dict(content["plan"]).to_dict(),
        kept_bytes=of_type(content["kept_bytes"], int),
        nll=read_values(content["nll"], windows),
    )
