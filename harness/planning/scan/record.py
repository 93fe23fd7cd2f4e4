"""The record of a scan: what each sub-layer and layer is worth, window by window. JSON is the truth, all else a view.

Every measure is one number a window of text. Its mean over the windows stands for it, and the interval around that is
a bootstrap's, which draws windows, not tokens: the tokens of one window hang together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, TypeGuard

import numpy as np

from harness.errors import CannotRun
from harness.report.notebook import NotebookRecord, Summary
from harness.report.report import read_record
from pruning import PrunePlan, PruningError

SCHEMA = 1
KIND: Final = "scan"
"""What `kind` says in the JSON."""


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


@dataclass(frozen=True)
class Window:
    """One window of text: the text's name, which of its tokens is the first, and the full model's mean NLL on it.

    The latter is in nats per token, None where nothing was removed, so that no head ran.
    """

    text: str
    first_token: int
    nll: float | None


@dataclass(frozen=True)
class Contribution:
    """What one sub-layer, or whole layer, does: by the name of a metric, one value a window, None where not finite.

    `sublayer` is "self_attn", "mlp" or "layer"; `layer` its index, from 0.
    """

    sublayer: str
    layer: int
    values: Mapping[str, tuple[float | None, ...]]

    @property
    def name(self) -> str:
        """How people call it, such as `mlp 7`."""
        return f"{self.sublayer} {self.layer}"

    def estimate(self, metric: str) -> Estimate:
        """Return the mean and interval of a metric; raises KeyError for one that was not measured."""
        return estimate(self.values[metric])


@dataclass(frozen=True)
class Distance:
    """The angular distance between what enters layer `first` and what leaves `layers` layers later, one a window."""

    first: int
    layers: int
    values: tuple[float | None, ...]

    def estimate(self) -> Estimate:
        """Return its mean and interval."""
        return estimate(self.values)


@dataclass(frozen=True, repr=False)
class Scan(NotebookRecord):
    """A scan of a checkpoint.

    `plan` is what the checkpoint lacks already, `layers` how many decoder layers it has, `mode` how it was loaded,
    `metrics` what was measured, `window_tokens` how long a window is. `environment` says where, and with what.
    """

    checkpoint: str
    plan: Mapping[str, list[int]]
    layers: int
    mode: str
    metrics: tuple[str, ...]
    window_tokens: int
    windows: tuple[Window, ...]
    contributions: tuple[Contribution, ...]
    distances: tuple[Distance, ...]
    environment: Mapping[str, Any]

    @property
    def nll(self) -> Estimate:
        """Mean negative log likelihood of the full model, nats per token."""
        return estimate(tuple(window.nll for window in self.windows))

    def ranked(self, metric: str) -> list[Contribution]:
        """Return the contributions that have a metric, the least first; those that are not finite come last."""
        measured = [(each, each.estimate(metric).mean) for each in self.contributions if metric in each.values]
        return [each for each, _ in sorted(measured, key=lambda pair: float("inf") if pair[1] is None else pair[1])]

    def summary(self) -> Summary:
        """Return what people see first: what was scanned, and what is least missed."""
        from .view import scan_summary  # which views this record

        return scan_summary(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each sub-layer and layer: of each metric the mean, and the ends of its interval."""
        return [
            {
                "sublayer": each.sublayer,
                "layer": each.layer,
                **{
                    f"{metric}{end}": value
                    for metric in each.values
                    for end, value in zip(("", " low", " high"), astuple(each.estimate(metric)), strict=True)
                },
            }
            for each in self.contributions
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON holds it; what follows from it, the estimates, is there for readers alone."""
        content = asdict(self)
        for each, written in zip(self.contributions, content["contributions"], strict=True):
            written["estimates"] = {metric: asdict(each.estimate(metric)) for metric in each.values}
        for distance, written in zip(self.distances, content["distances"], strict=True):
            written["estimate"] = asdict(distance.estimate())
        return {"schema": SCHEMA, "kind": KIND, **content}

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` wrote; raises ValueError, in one line, for anything else."""
        if not is_scan(content) or content["schema"] != SCHEMA:
            raise ValueError(f"not a scan of schema {SCHEMA}")
        try:
            windows = tuple(map(read_window, content["windows"]))
            scan = cls(
                checkpoint=of_type(content["checkpoint"], str),
                plan=PrunePlan.from_dict(content["plan"]).to_dict(),
                layers=of_type(content["layers"], int),
                mode=of_type(content["mode"], str),
                metrics=tuple(_known(metric, METRICS) for metric in content["metrics"]),
                window_tokens=of_type(content["window_tokens"], int),
                windows=windows,
                contributions=tuple(_contribution(each, len(windows)) for each in content["contributions"]),
                distances=tuple(_distance(each, len(windows)) for each in content["distances"]),
                environment=of_type(content["environment"], Mapping),
            )
        except KeyError as error:
            raise ValueError(f"not a scan of schema {SCHEMA}: it has no {error}") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, PruningError) as error:
            raise ValueError(f"not a scan of schema {SCHEMA}: {error}") from None
        return scan

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a scan's JSON file; raises CannotRun, naming it."""
        try:
            return cls.from_dict(read_record(path, "scan"))
        except ValueError as error:
            raise CannotRun(f"{path} is no scan of prunecheck: {error}") from None


def is_scan(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether what a JSON file holds says of itself that it is a scan."""
    return isinstance(content, Mapping) and content.get("kind") == KIND and "schema" in content


def read_window(content: Mapping[str, Any]) -> Window:
    """Read a window of a record; raises KeyError, TypeError or ValueError for what is none."""
    (nll,) = read_values([content["nll"]], 1)
    return Window(of_type(content["text"], str), of_type(content["first_token"], int), nll)


def _contribution(content: Mapping[str, Any], windows: int) -> Contribution:
    return Contribution(
        sublayer=_known(content["sublayer"], ("self_attn", "mlp", "layer")),
        layer=of_type(content["layer"], int),
        values={_known(name, METRICS): read_values(values, windows) for name, values in content["values"].items()},
    )


def _distance(content: Mapping[str, Any], windows: int) -> Distance:
    first, layers = of_type(content["first"], int), of_type(content["layers"], int)
    return Distance(first, layers, read_values(content["values"], windows))


def read_values(content: Any, windows: int) -> tuple[float | None, ...]:
    """Read one value a window; raises TypeError or ValueError for what is none."""
    values = tuple(None if value is None else float(of_type(value, (int, float))) for value in content)
    if len(values) != windows:
        raise ValueError(f"{len(values)} values do not belong to {windows} windows")
    return values


def _known(value: Any, known: Any) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def of_type(value: Any, kind: Any) -> Any:
    """Return a value of a record that is of a type; raises TypeError for others."""
    if not isinstance(value, kind):
        raise TypeError(f"it holds {type(value).__name__} where something else should be")
    return value
