"""The search, given a function that says what plans cost."""

from collections.abc import Collection
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.search.methods import Budget, Values, mean, search
from pruning import PrunePlan
from pruning.plan import sublayers_of

pytestmark = pytest.mark.newest

SUBLAYERS = [PrunePlan.of([each]) for each in sublayers_of(3)]
SIZES = {each: 10 if each.self_attn else 30 for each in SUBLAYERS}
WHOLE = 200
EVERY = [
    plan
    for count in range(len(SUBLAYERS) + 1)
    for several in combinations(SUBLAYERS, count)
    for plan in [PrunePlan([i for s in several for i in s.self_attn], [i for s in several for i in s.mlp])]
]

costs = st.lists(
    st.integers(0, 50) | st.just(None), min_size=len(EVERY) - 1, max_size=len(EVERY) - 1
).map(lambda values: dict(zip(EVERY, [10, *values], strict=True)))  # fmt: skip
"""What each plan comes to; the whole model is the first, and some plans are not finite."""


class Evaluations:
    """Says what plans cost, and keeps what it was asked."""

    def __init__(self, costs: dict[PrunePlan, int | None]) -> None:
        self.costs = costs
        self.asked: list[PrunePlan] = []

    def __call__(self, plans: Collection[PrunePlan], removed: PrunePlan) -> dict[PrunePlan, Values]:
        """Return the values of plans, each in two windows."""
        assert all((removed - plan).is_empty and not (plan - removed).is_empty for plan in plans)
        self.asked += plans
        return {plan: (self.value(plan), self.value(plan)) for plan in plans}

    def value(self, plan: PrunePlan) -> float | None:
        """Return what one plan comes to."""
        cost = self.costs[plan]
        return None if cost is None else float(cost)


def searched(costs: dict[PrunePlan, int | None], budget: Budget, method: str, width: int = 1) -> list[PrunePlan]:
    """Return the plans after each step."""
    evaluations = Evaluations(costs)
    steps = search(SUBLAYERS, SIZES, WHOLE, (10.0, 10.0), evaluations, budget, method=method, width=width)
    assert len(evaluations.asked) == len(set(evaluations.asked)), "something was evaluated twice"
    before = PrunePlan()
    for step in steps:
        assert step.removed == step.plan - before
        assert before | step.removed == step.plan
        before = step.plan
    return [step.plan for step in steps]


def size(plan: PrunePlan) -> int:
    """Return the bytes of a plan."""
    return 10 * len(plan.self_attn) + 30 * len(plan.mlp)


@given(costs, st.integers(1, 6))
def test_greedy_removes_the_least_missed(costs: dict[PrunePlan, int | None], drop: int) -> None:
    """Each step of greedy is, of all that add one sub-layer, the one that costs least, the first of equals."""
    plan, expected = PrunePlan(), []
    for _ in range(drop):
        longer = [plan | each for each in SUBLAYERS if not (each - plan).is_empty]
        plan = min(longer, key=lambda each: float("inf") if costs[each] is None else costs[each] or 0)
        if costs[plan] is None:
            expected = []
            break
        expected.append(plan)
    assert searched(costs, Budget(drop=drop), "greedy") == expected


@given(costs, st.integers(1, 6))
def test_one_shot_ranks_once(costs: dict[PrunePlan, int | None], drop: int) -> None:
    """One-shot removes in the order of what each alone costs, and none where a step is not finite."""
    ranked = sorted(SUBLAYERS, key=lambda each: float("inf") if costs[each] is None else costs[each] or 0)
    plans = [PrunePlan()]
    for each in ranked[:drop]:
        plans.append(plans[-1] | each)
    expected = [] if any(costs[plan] is None for plan in plans) else plans[1:]
    assert searched(costs, Budget(drop=drop), "one-shot") == expected


@given(costs, st.integers(1, 6))
def test_a_wide_beam_finds_the_best(costs: dict[PrunePlan, int | None], drop: int) -> None:
    """A beam that drops nothing ends with the best plan of that size that finite ones lead to."""
    reached = {PrunePlan()}
    for _ in range(drop):
        reached = {
            plan | each
            for plan in reached
            for each in SUBLAYERS
            if not (each - plan).is_empty and costs[plan | each] is not None
        }
    found = searched(costs, Budget(drop=drop), "beam", 1000)
    if not reached:
        assert found == []
    else:
        assert costs[found[-1]] == min(costs[plan] or 0 for plan in reached)


@given(costs, st.integers(1, 119), st.sampled_from(["greedy", "one-shot", "beam"]))
def test_bytes(costs: dict[PrunePlan, int | None], gone: int, method: str) -> None:
    """A budget of bytes is met at the end and not before it."""
    plans = searched(costs, Budget(most_bytes=WHOLE - gone), method, 2)
    if plans:
        assert size(plans[-1]) >= gone
        assert all(size(plan) < gone for plan in plans[:-1])


@given(costs, st.integers(0, 50), st.sampled_from(["greedy", "one-shot", "beam"]))
def test_quality(costs: dict[PrunePlan, int | None], rise: int, method: str) -> None:
    """Within a bound of quality no step costs more, and where greedy ends any further one would."""
    plans = searched(costs, Budget(most_rise=float(rise)), method, 2)
    assert all((costs[plan] if costs[plan] is not None else 1000) - 10 <= rise for plan in plans)  # type: ignore[operator]
    if method == "greedy":
        last = plans[-1] if plans else PrunePlan()
        further = [costs[last | each] for each in SUBLAYERS if not (each - last).is_empty]
        assert all(cost is None or cost - 10 > rise for cost in further)


@given(st.integers(1, 20), st.integers(1, 20))
def test_one_shot_does_not_see_what_greedy_sees(each: int, other: int) -> None:
    """Of two that stand in for one another one-shot removes both, greedy and beam the one and what costs more."""
    first, second, third = SUBLAYERS[0], SUBLAYERS[2], SUBLAYERS[3]
    alone = {first: each, second: each, third: each + other}

    def cost(plan: PrunePlan) -> int:
        gone = [least for least in SUBLAYERS if (least - plan).is_empty]
        both = first in gone and second in gone
        return 10 + (1000 if both else 0) + sum(alone.get(least, 1000) for least in gone)

    costs: dict[PrunePlan, int | None] = {plan: cost(plan) for plan in EVERY}
    assert searched(costs, Budget(drop=2), "one-shot")[-1] == first | second
    assert searched(costs, Budget(drop=2), "greedy")[-1] == first | third
    assert searched(costs, Budget(drop=2), "beam", 2)[-1] == first | third


def test_means() -> None:
    """A plan with one window that is not finite is worse than all others."""
    assert mean((1.0, 2.0)) == 1.5
    assert mean((1.0, None)) == float("inf")
