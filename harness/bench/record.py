"""The record of a benchmark: every cost, pruned and base, beside what the plan predicts. JSON is the truth.

A cost is bytes or seconds, so less is better and every gain is a share that went away. Tokens per second are a view.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeGuard, get_args

from harness.errors import CannotRun
from harness.report.notebook import NotebookRecord, Summary
from harness.report.report import read_record

SCHEMA = 1
KIND: Final = "benchmark"
"""What `kind` says in the JSON; the report of a check has no such entry."""

Unit = Literal["B", "s"]
Quantity = Literal["bytes", "multiply-adds"]


@dataclass(frozen=True)
class Prediction:
    """What the plan does to a quantity that bounds a cost from below: how much of it base and pruned model have."""

    quantity: Quantity
    base: float
    pruned: float

    @property
    def removed(self) -> float:
        """The share that the plan removes, 0 to 1; 0 where there is nothing to remove."""
        return 1 - self.pruned / self.base if self.base else 0.0


@dataclass(frozen=True)
class Measurement:
    """One cost of both models, in bytes ("B") or seconds ("s").

    `base` and `pruned` hold one value a run, of at least one. Runs took turns, so the n-th of the one and the n-th of
    the other were made one after the other. `setting` says under which circumstances, such as
    `{"batch": 1, "prompt tokens": 128}`. The first prediction is the one that the gain is held against. `tokens` are
    those that a run handled, where it handled any. What `is_counted` is the same whenever it is looked at: bytes of
    files and tensors.
    """

    name: str
    unit: Unit
    base: tuple[float, ...]
    pruned: tuple[float, ...]
    predictions: tuple[Prediction, ...] = ()
    setting: Mapping[str, int] = field(default_factory=dict)
    tokens: int | None = None
    is_counted: bool = False

    @property
    def label(self) -> str:
        """The name with its setting, by which two records are compared."""
        return ", ".join((self.name, *(f"{name} {value}" for name, value in self.setting.items())))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Pruned over base, of each pair of runs that followed one another; empty where the base costs nothing."""
        return tuple(pruned / base for base, pruned in zip(self.base, self.pruned, strict=True) if base)

    @property
    def removed(self) -> float | None:
        """The share of the cost that went away: by the median of the ratios; None where the base costs nothing."""
        return 1 - statistics.median(self.ratios) if self.ratios else None

    @property
    def removed_range(self) -> tuple[float, float] | None:
        """The least and the largest share that went away in a pair of runs."""
        return (1 - max(self.ratios), 1 - min(self.ratios)) if self.ratios else None

    @property
    def uncertainty(self) -> float | None:
        """How far the share may be off: 0 if counted, None after a single run.

        Half the notch of a box plot, 1.57 times the distance of the quartiles over the root of the number of runs, an
        interval of about 95 % for a median (McGill, Tukey and Larsen 1978, Variations of Box Plots).
        """
        if self.is_counted:
            return 0.0
        if len(self.ratios) < 2:
            return None
        first, _, third = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return 1.57 * (third - first) / math.sqrt(len(self.ratios))

    @property
    def arrived(self) -> float | None:
        """How much of the predicted gain arrived: 1 for all of it; None where nothing is predicted to go away."""
        if self.removed is None or not self.predictions or not self.predictions[0].removed:
            return None
        return self.removed / self.predictions[0].removed


@dataclass(frozen=True)
class ModeRecord:
    """What one way of loading came to. `skipped` says why nothing of it was measured; `notes` are for people."""

    name: str
    skipped: str | None
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Benchmark(NotebookRecord):
    """A benchmark of a pruned checkpoint against its base.

    `stored` are costs of the files alone. `clock` holds the seconds that one fixed matrix product took, each time
    between two measurements: what it varies by, the machine varied by. `environment` says where it was, and with what.
    """

    checkpoint: str
    base: str
    plan: Mapping[str, list[int]]
    stored: tuple[Measurement, ...]
    modes: tuple[ModeRecord, ...]
    clock: tuple[float, ...]
    environment: Mapping[str, Any]

    @property
    def is_empty(self) -> bool:
        """Whether no way of loading could be measured."""
        return all(mode.skipped is not None for mode in self.modes)

    def summary(self) -> Summary:
        """Return what people see first: plan, and what came of each prediction."""
        from .view import benchmark_summary  # which views this record

        return benchmark_summary(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each cost and way of loading ("" for what is stored), with medians and what is gone."""
        return [
            {
                "mode": mode,
                "cost": each.name,
                **each.setting,
                "unit": each.unit,
                "base": statistics.median(each.base),
                "pruned": statistics.median(each.pruned),
                "removed": each.removed,
                "uncertainty": each.uncertainty,
                "predicted": each.predictions[0].removed if each.predictions else None,
                "arrived": each.arrived,
                "runs": len(each.base),
            }
            for mode, measurements in self._groups()
            for each in measurements
        ]

    def measurements(self) -> dict[tuple[str, str], Measurement]:
        """Return every measurement by the name of its mode, "" for what is stored, and its label."""
        return {(name, each.label): each for name, group in self._groups() for each in group}

    def _groups(self) -> list[tuple[str, tuple[Measurement, ...]]]:
        return [("", self.stored), *((mode.name, mode.measurements) for mode in self.modes)]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it; what follows from it, such as `removed`, is there for readers alone."""
        content = asdict(self)
        for mode, written in zip(self.modes, content["modes"], strict=True):
            written["measurements"] = [_written(each) for each in mode.measurements]
        content["stored"] = [_written(each) for each in self.stored]
        return {"schema": SCHEMA, "kind": KIND, **content}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        if not is_benchmark(content) or content["schema"] != SCHEMA:
            raise ValueError(f"not a benchmark of schema {SCHEMA}")
        try:
            return cls(
                checkpoint=_of_type(content["checkpoint"], str),
                base=_of_type(content["base"], str),
                plan=_of_type(content["plan"], Mapping),
                stored=tuple(map(_measurement, content["stored"])),
                modes=tuple(map(_mode, content["modes"])),
                clock=_numbers(content["clock"]),
                environment=_of_type(content["environment"], Mapping),
            )
        except KeyError as error:
            raise ValueError(f"not a benchmark of schema {SCHEMA}: it has no {error}") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a benchmark of schema {SCHEMA}: {error}") from None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a benchmark's JSON file; raises CannotRun, naming it."""
        try:
            return cls.from_dict(read_record(path, "benchmark"))
        except ValueError as error:
            raise CannotRun(f"{path} is no benchmark of prunecheck: {error}") from None


def counted(
    name: str,
    base: float,
    pruned: float,
    prediction: Prediction | None = None,
    setting: Mapping[str, int] | None = None,
) -> Measurement:
    """Return a cost in bytes that was counted."""
    predictions = () if prediction is None else (prediction,)
    return Measurement(name, "B", (base,), (pruned,), predictions, setting or {}, is_counted=True)


def is_benchmark(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether what a JSON file holds says of itself that it is a benchmark."""
    return isinstance(content, Mapping) and content.get("kind") == KIND and "schema" in content


def _written(measurement: Measurement) -> dict[str, Any]:
    return {
        **asdict(measurement),
        "predicted": [prediction.removed for prediction in measurement.predictions],
        "removed": measurement.removed,
        "removed_range": measurement.removed_range,
        "uncertainty": measurement.uncertainty,
        "arrived": measurement.arrived,
    }


def _mode(content: Mapping[str, Any]) -> ModeRecord:
    skipped = content["skipped"]
    return ModeRecord(
        name=_of_type(content["name"], str),
        skipped=None if skipped is None else _of_type(skipped, str),
        measurements=tuple(map(_measurement, content["measurements"])),
        notes=tuple(_of_type(note, str) for note in content["notes"]),
    )


def _measurement(content: Mapping[str, Any]) -> Measurement:
    base, pruned = _numbers(content["base"]), _numbers(content["pruned"])
    if not base or len(base) != len(pruned):
        raise ValueError("base and pruned have not run equally often")
    tokens = content["tokens"]
    setting = _of_type(content["setting"], Mapping)
    return Measurement(
        name=_of_type(content["name"], str),
        unit=_one_of(content["unit"], get_args(Unit)),
        base=base,
        pruned=pruned,
        predictions=tuple(map(_prediction, content["predictions"])),
        setting={_of_type(name, str): _of_type(value, int) for name, value in setting.items()},
        tokens=None if tokens is None else _of_type(tokens, int),
        is_counted=_of_type(content["is_counted"], bool),
    )


def _prediction(content: Mapping[str, Any]) -> Prediction:
    (base, pruned) = _numbers([content["base"], content["pruned"]])
    return Prediction(_one_of(content["quantity"], get_args(Quantity)), base, pruned)


def _numbers(content: Any) -> tuple[float, ...]:
    return tuple(_of_type(value, (int, float)) for value in content)


def _one_of(value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _of_type(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"it holds {type(value).__name__} where something else should be")
    return value
