"""The record of a scan: what each sub-layer and layer is worth, window by window. JSON is the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, ClassVar

from harness.report.notebook import NotebookRecord, Summary, plan_text
from harness.report.schema import JsonRecord
from harness.report.terminal import counted
from pruning import PrunePlan
from pruning.plan import KINDS

from .estimate import METRICS, Estimate, estimate, estimate_text, perplexity_text

_SHOWN = 8  # at a prompt


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

    `sublayer` is "self_attn", "mlp" or "layer"; `layer` its index, from 0; `kept_share` which share of the bytes of all
    tensors is left without it, None in a record of 0.1.0.
    """

    sublayer: str
    layer: int
    values: Mapping[str, tuple[float | None, ...]]
    kept_share: float | None = None

    def __post_init__(self) -> None:
        if self.sublayer not in (*KINDS, "layer"):
            raise ValueError(f"{self.sublayer!r} is none of {', '.join(KINDS)}, layer")

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
class Scan(JsonRecord, NotebookRecord):
    """A scan of a checkpoint.

    `plan` is what the checkpoint lacks already, `layers` how many decoder layers it has, `mode` how it was loaded,
    `metrics` what was measured, `window_tokens` how long a window is. `environment` says where, and with what.
    """

    NAME: ClassVar = "scan"
    KIND: ClassVar = "scan"

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

    def __post_init__(self) -> None:
        PrunePlan.from_dict(self.plan)
        require_one_a_window(self.windows, *(each.values for each in self.distances))
        for each in self.contributions:
            require_one_a_window(self.windows, *each.values.values())
        if unknown := {*self.metrics, *(name for each in self.contributions for name in each.values)} - METRICS.keys():
            raise ValueError(f"{min(unknown)!r} is not a metric: {', '.join(METRICS)} are")

    @property
    def nll(self) -> Estimate:
        """Mean negative log likelihood of the full model, nats per token."""
        return estimate(tuple(window.nll for window in self.windows))

    def ranked(self, metric: str) -> list[Contribution]:
        """Return the contributions that have a metric, the least first; those that are not finite come last."""
        measured = [(each, each.estimate(metric).mean) for each in self.contributions if metric in each.values]
        return [each for each, _ in sorted(measured, key=lambda pair: float("inf") if pair[1] is None else pair[1])]

    @property
    def ranked_metrics(self) -> list[str]:
        """What was measured of each sub-layer and layer, the one that they are ranked by first."""
        return [name for name in self.metrics if name != "angular"]

    def facts(self) -> list[tuple[str, str]]:
        """Return what was scanned, and on what: names, and what they are."""
        texts = dict.fromkeys(window.text for window in self.windows)
        rows = [
            *self._least_missed(),
            ("checkpoint", self.checkpoint),
            ("already pruned", plan_text(self.plan)),
            ("loaded as", self.mode),
            ("text", f"{counted(len(self.windows), 'window')} of {self.window_tokens} tokens: {', '.join(texts)}"),
        ]
        if self.nll.mean is not None:
            rows.append(("nothing removed", f"negative log likelihood {estimate_text(self.nll)} nats per token"))
        return rows

    def _least_missed(self) -> list[tuple[str, str]]:
        if not self.ranked_metrics:
            return []
        metric = self.ranked_metrics[0]
        least = self.ranked(metric)[0]
        left = [] if least.kept_share is None else [f"{least.kept_share:.1%} of the bytes left"]
        cost = [f"perplexity {perplexity_text(least.estimate('nll'))}"] if metric == "nll" else []
        return [("least missed", f"{least.name}: {', '.join([*left, *cost]) or f'by {metric}'}")]

    def summary(self) -> Summary:
        """Return what people see first: what is least missed; in HTML every sub-layer and layer, least first."""
        metrics = self.ranked_metrics
        ranked = self.ranked(metrics[0]) if metrics else []
        lines = self.facts()
        lines += [(each.name, f"{metrics[0]} {estimate_text(each.estimate(metrics[0]))}") for each in ranked[:_SHOWN]]
        rows = [row(each, metrics) for each in ranked]
        title = f"by {metrics[0]}, the least first" if metrics else "distances alone"
        return Summary(title, lines, ("", *metrics), rows)

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

    def fields(self) -> dict[str, Any]:
        """Return what the JSON has; the estimates, which follow from the values, are there for readers alone."""
        content = super().fields()
        for each, written in zip(self.contributions, content["contributions"], strict=True):
            written["estimates"] = {metric: asdict(each.estimate(metric)) for metric in each.values}
        for distance, written in zip(self.distances, content["distances"], strict=True):
            written["estimate"] = asdict(distance.estimate())
        return content


def row(contribution: Contribution, metrics: Sequence[str]) -> list[str]:
    """Return what people see of a sub-layer or layer: its name, and each metric's mean with its interval."""
    return [
        contribution.name,
        *(estimate_text(contribution.estimate(name)) if name in contribution.values else "" for name in metrics),
    ]


def require_one_a_window(windows: Sequence[Window], *measures: Sequence[float | None]) -> None:
    """Raise ValueError for measures that do not have one value a window."""
    for values in measures:
        if len(values) != len(windows):
            raise ValueError(f"{len(values)} values do not belong to {len(windows)} windows")
