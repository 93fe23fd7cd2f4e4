"""One cost of a benchmark, of base and pruned model, and what the plan predicts of it.

A cost is bytes or seconds, so less is better and every gain is a share that went away. Tokens per second are a view.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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

    def __post_init__(self) -> None:
        if not self.base or len(self.base) != len(self.pruned):
            raise ValueError("base and pruned have not run equally often")

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
