"""The record of a benchmark: every cost, pruned and base, beside what the plan predicts. JSON is the truth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from harness.report.notebook import NotebookRecord, Summary, plan_text
from harness.report.schema import JsonRecord

from .measurement import Measurement
from .words import arrived, percent, planned, quantity


@dataclass(frozen=True)
class ModeRecord:
    """What one way of loading came to. `skipped` says why nothing of it was measured; `notes` are for people."""

    name: str
    skipped: str | None
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Benchmark(JsonRecord, NotebookRecord):
    """A benchmark of a pruned checkpoint against its base.

    `stored` are costs of the files alone. `clock` holds the seconds that one fixed matrix product took, each time
    between two measurements: what it varies by, the machine varied by. `environment` says where it was, and with what.
    """

    NAME: ClassVar = "benchmark"
    KIND: ClassVar = "benchmark"

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
        """Return what people see first: plan, and what is gone of each cost that is predicted; in HTML every cost."""
        ways = sum(mode.skipped is None for mode in self.modes)
        facts = [
            ("checkpoint", self.checkpoint),
            ("base", self.base),
            ("plan", plan_text(self.plan)),
            *((mode.name, f"not measured: {mode.skipped}") for mode in self.modes if mode.skipped is not None),
        ]
        rows = []
        for (mode, label), each in self.measurements().items():
            place, came = f"{mode or 'on disk'}, {label}", arrived(each)
            if each.predictions:
                gone = f"gone {percent(each.removed)}, predicted {percent(each.predictions[0].removed)}"
                facts.append((place, f"{gone}, arrived {came}" if came else gone))
            values = [quantity(statistics.median(runs), each.unit) for runs in (each.base, each.pruned)]
            rows.append([place, *values, percent(each.removed), planned(each, "bytes"), came])
        title = f"what pruning saves in {ways} way{'' if ways == 1 else 's'} of loading"
        return Summary(title, facts, ("cost", "base", "pruned", "gone", "plan: bytes", "arrived"), rows)

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

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has; what follows from measurements, such as `removed`, is there for readers alone."""
        content = super().fields()
        for mode, written in zip(self.modes, content["modes"], strict=True):
            written["measurements"] = [_written(each) for each in mode.measurements]
        content["stored"] = [_written(each) for each in self.stored]
        return content


def _written(measurement: Measurement) -> dict[str, Any]:
    return {
        **asdict(measurement),
        "predicted": [prediction.removed for prediction in measurement.predictions],
        "removed": measurement.removed,
        "removed_range": measurement.removed_range,
        "uncertainty": measurement.uncertainty,
        "arrived": measurement.arrived,
    }
