"""The search itself: which sub-layer goes next. Knows no model, only a function that says what plans cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pruning import PrunePlan

METHODS: Final = ("greedy", "one-shot", "beam")

Values = tuple[float | None, ...]
"""Mean negative log likelihood in nats per token, one a window of text; None where it is not finite."""

Evaluate = Callable[[Collection[PrunePlan], PrunePlan], Mapping[PrunePlan, Values]]
"""Called with plans and what all of them contain; returns what the model without each of them comes to."""


@dataclass(frozen=True)
class Removal:
    """One step: `plan` is all that is removed after it, `removed` what this step removed."""

    plan: PrunePlan
    removed: PrunePlan
    values: Values


@dataclass(frozen=True)
class Budget:
    """Where the search ends; exactly one is given.

    Attributes:
        drop: So many sub-layers are removed.
        most_bytes: Sub-layers are removed until so many bytes of tensors, at most, are left.
        most_rise: Sub-layers are removed as long as the mean negative log likelihood rises by no more, in nats.
    """

    drop: int | None = None
    most_bytes: int | None = None
    most_rise: float | None = None

    def is_met(self, plan: PrunePlan, kept_bytes: int) -> bool:
        """Whether nothing more needs to go; never for a bound of quality, which ends by what comes next."""
        if self.drop is not None:
            return len(plan.sublayers) >= self.drop
        return self.most_bytes is not None and kept_bytes <= self.most_bytes

    def allows(self, rise: float) -> bool:
        """Whether a plan that costs so much may be chosen; one whose logits are not finite never is."""
        return math.isfinite(rise) and (self.most_rise is None or rise <= self.most_rise)


def mean(values: Values) -> float:
    """Return the mean over the windows; infinity where one of them is not finite, so that it is worst of all."""
    numbers = [value for value in values if value is not None]
    return math.inf if len(numbers) < len(values) or not numbers else math.fsum(numbers) / len(numbers)


def search(
    sublayers: Sequence[PrunePlan],
    sizes: Mapping[PrunePlan, int],
    whole: int,
    full: Values,
    evaluate: Evaluate,
    budget: Budget,
    *,
    method: str,
    width: int = 1,
) -> list[Removal]:
    """Return the steps to the plan that is chosen, in their order; none if the budget cannot be met.

    Args:
        sublayers: What can be removed, one sub-layer each, in the order of the layers, which decides between equals.
        sizes: Bytes of tensors of each.
        whole: Bytes of all tensors before anything is removed.
        full: What the model comes to with nothing removed.
        evaluate: See Evaluate.
        budget: Where to end.
        method: Of METHODS. "greedy" removes the one that is least missed, again and again; "beam" goes on with `width`
            plans of each size, not one; "one-shot" ranks all once, each missed alone, and removes in that order.
        width: See there.

    Where the budget is one of bytes, what is least missed is so for its size: by the rise for each byte that is gone.
    Where it is one of quality, the search ends before the first step that would cost more.
    """
    cost = _Cost(sizes, whole, mean(full), by_byte=budget.most_bytes is not None)
    if method == "one-shot":
        return _one_shot(sublayers, cost, evaluate, budget)
    return _beam(sublayers, cost, evaluate, budget, width if method == "beam" else 1)


@dataclass(frozen=True)
class _Cost:
    sizes: Mapping[PrunePlan, int]
    whole: int
    full: float
    by_byte: bool

    def rise(self, values: Values) -> float:
        return mean(values) - self.full

    def kept(self, plan: PrunePlan) -> int:
        return self.whole - sum(size for each, size in self.sizes.items() if (each - plan).is_empty)

    def rank(self, plan: PrunePlan, values: Values) -> float:
        """Return what is to be least: the rise, or the rise for each byte that is gone.

        What costs nothing comes before all that does, and by what it gains: divided by bytes, the smallest would gain
        most.
        """
        rise = self.rise(values)
        return rise / max(self.whole - self.kept(plan), 1) if self.by_byte and rise > 0 else rise


def _one_shot(sublayers: Sequence[PrunePlan], cost: _Cost, evaluate: Evaluate, budget: Budget) -> list[Removal]:
    alone = evaluate(sublayers, PrunePlan())
    # sorted is stable: between equals the order of the layers decides.
    ranked = sorted(sublayers, key=lambda each: cost.rank(each, alone[each]))
    prefixes = []
    plan = PrunePlan()
    for each in ranked:
        plan |= each
        prefixes.append(plan)
        if budget.is_met(plan, cost.kept(plan)):
            break
    steps: list[Removal] = []
    before = PrunePlan()
    for prefix, values in _evaluated_in_turn(prefixes, alone, evaluate, whole_at_once=budget.most_rise is None):
        if not budget.allows(cost.rise(values)):
            break
        steps.append(Removal(prefix, prefix - before, values))
        before = prefix
    is_met = budget.most_rise is not None or len(steps) == len(prefixes)
    return steps if is_met else []


def _evaluated_in_turn(
    prefixes: Sequence[PrunePlan], alone: Mapping[PrunePlan, Values], evaluate: Evaluate, *, whole_at_once: bool
) -> Iterator[tuple[PrunePlan, Values]]:
    """Yield each prefix of a ranking with its values: all in one sweep, or some at a time where the end is unknown."""
    portion = len(prefixes) if whole_at_once else 8
    for first in range(0, len(prefixes), max(portion, 1)):
        some = prefixes[first : first + portion]
        missing = [each for each in some if each not in alone]
        values = {**alone, **(evaluate(missing, PrunePlan()) if missing else {})}
        for each in some:
            yield each, values[each]


def _beam(sublayers: Sequence[PrunePlan], cost: _Cost, evaluate: Evaluate, budget: Budget, width: int) -> list[Removal]:
    paths: list[list[Removal]] = [[]]
    done: list[list[Removal]] = []
    while paths:
        longer: dict[PrunePlan, list[Removal]] = {}
        for path in paths:
            plan = path[-1].plan if path else PrunePlan()
            left = {plan | each: each for each in sublayers if not (each - plan).is_empty}
            wanted = [each for each in left if each not in longer]
            values = evaluate(wanted, plan) if wanted else {}
            for each in wanted:
                longer[each] = [*path, Removal(each, left[each], values[each])]
        allowed = [path for path in longer.values() if budget.allows(cost.rise(path[-1].values))]
        if not allowed:  # nothing more can go, or nothing more may
            return _best(done if budget.most_rise is None else [path for path in paths if path], cost)
        ranked = sorted(allowed, key=lambda path: cost.rank(path[-1].plan, path[-1].values))[:width]
        done += [path for path in ranked if budget.is_met(path[-1].plan, cost.kept(path[-1].plan))]
        paths = [path for path in ranked if path not in done]
        if done and not _can_be_better(paths, done, cost):
            break
    return _best(done, cost)


def _can_be_better(paths: Sequence[list[Removal]], done: Sequence[list[Removal]], cost: _Cost) -> bool:
    """Whether a path that has not met the budget still costs less than the best that has."""
    best = min(cost.rise(path[-1].values) for path in done)
    return any(cost.rise(path[-1].values) < best for path in paths)


def _best(paths: Sequence[list[Removal]], cost: _Cost) -> list[Removal]:
    """Return the path that costs least; under a bound of quality all are of one length, the longest there is."""
    return min(paths, key=lambda path: cost.rise(path[-1].values), default=[])
