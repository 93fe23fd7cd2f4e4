"""What can be measured of a removal, and the mean of a measure over the windows with its interval.

Every measure is one number a window of text. Its mean over the windows stands for it, and the interval around that is
a bootstrap's, which draws windows, not tokens: the tokens of one window hang together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A measure: its `label` and `unit` for people, and whether it is of a removal, or of the model while it runs."""

    label: str
    unit: str
    is_of_removal: bool


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "nll": Metric("rise of the negative log likelihood", "nats per token", True),
        "kl": Metric("KL divergence to the full model", "nats per token", True),
        "changed": Metric("changed most likely tokens", "share", True),
        "influence": Metric("block influence, 1 - cosine of input and output", "", False),
        "update": Metric("norm of the update over that of the stream", "", False),
        "angular": Metric("angular distance over several layers", "share of a half turn", False),
    }
)
"""What can be measured, by the name that --metric has for it.

The first three are of removing something: see `predictions.Outcome`, of which each is the mean over a window's tokens;
`nll` is less that of the full model. The others are of the model as it runs: see `activity.Activity`.
"""

_RESAMPLES: Final = 2000
_COVERED: Final = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Estimate:
    """A mean over the windows, and the ends of its 95 % interval; None where one window, or a NaN, allows none."""

    mean: float | None
    low: float | None
    high: float | None

    @property
    def is_noise(self) -> bool:
        """Whether the interval has zero in it, so that the text does not tell which sign the mean has."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def estimate(values: tuple[float | None, ...]) -> Estimate:
    """Return the mean of a measure over its windows, with its interval.

    The percentile bootstrap (Efron 1979, Bootstrap Methods: Another Look at the Jackknife): as many windows are drawn
    with replacement as there are, 2000 times, by a fixed seed and for every measure the same ones; the interval holds
    95 % of the means. With few windows it is too narrow.
    """
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return Estimate(None, None, None)
    mean = float(np.mean(numbers))
    if len(numbers) == 1:
        return Estimate(mean, None, None)
    low, high = np.percentile(np.array(numbers)[_draws(len(numbers))].mean(axis=1), _COVERED)
    return Estimate(mean, float(low), float(high))


@cache
def _draws(windows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(0, windows, (_RESAMPLES, windows))


def perplexity_text(rise: Estimate) -> str:
    """Return the factor of the perplexity that a rise in nats per token is: `x 1.49 (1.34 to 1.65)`."""
    ends = (None if end is None else _exponential(end) for end in (rise.mean, rise.low, rise.high))
    factor = Estimate(*ends)
    if factor.mean is None:
        return "not finite"
    interval = "" if factor.low is None or factor.high is None else f" ({factor.low:.3g} to {factor.high:.3g})"
    return f"{'~ ' if rise.is_noise else ''}x {factor.mean:.3g}{interval}"


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def estimate_text(estimate: Estimate) -> str:
    """Return a mean with the ends of its interval, marked where that holds zero."""
    if estimate.mean is None:
        return "not finite"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3g}"
    noise = "~ " if estimate.is_noise else ""
    return f"{noise}{estimate.mean:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"
