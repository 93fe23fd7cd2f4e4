"""Tests of what compares the outcomes of transformers' tests on stock and on ours."""

import pytest

from tests.upstream.comparison import EVERY_PART, Outcomes, differences


@pytest.mark.parametrize(
    ("stock", "ours", "exceptions"),
    [
        ({"a": "passed", "b": "failed"}, {"a": "passed", "b": "failed"}, []),
        ({"a": "failed"}, {"a": "passed"}, []),
        ({"a": "skipped"}, {"a": "failed"}, []),
        ({"a": "passed"}, {"a": "failed"}, ["a"]),
        ({"a, every part": "passed"}, {"a, every part": "skipped"}, ["a"]),
    ],
    ids=["alike", "ours is better", "not asked of stock", "an exception", "an exception in a part"],
)
def test_what_holds_the_rule(stock: dict[str, str], ours: dict[str, str], exceptions: list[str]) -> None:
    """Nothing is said where ours passes all that stock passes, or is excepted."""
    assert differences(stock, ours, exceptions) == []


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_what_breaks_the_rule(outcome: str) -> None:
    """A test that stock passes, and ours fails or skips, is named; so is one that did not run on ours."""
    assert differences({"a": "passed"}, {"a": outcome}, []) == [f"a: stock passed, but ours {outcome}"]
    assert differences({"a": "passed"}, {}, []) == ["a: stock passed, but ours not run"]


@pytest.mark.parametrize(("stock", "ours"), [("passed", "passed"), ("failed", "failed")])
def test_an_exception_that_is_not_needed(stock: str, ours: str) -> None:
    """An exception for a test that ours passes, or that stock does not pass, is named."""
    assert len(differences({"a": stock}, {"a": ours}, ["a"])) == 1


def test_nothing_ran() -> None:
    """A run without a test of the stock model does not hold the rule."""
    assert differences({}, {}, []) == ["no test of the stock model ran"]


def test_outcomes_are_kept(pytester: pytest.Pytester) -> None:
    """A test fails if a phase or a part of it does, and whether a part was skipped is kept apart."""
    pytester.makepyfile(
        """
        import unittest

        class TestStock(unittest.TestCase):
            def test_passes(self): pass
            def test_fails(self): assert False
            def test_is_skipped(self): self.skipTest("not here")
            def test_fails_in_a_part(self):
                for number in range(2):
                    with self.subTest(number=number):
                        assert number == 1
            def test_skips_a_part(self):
                for number in range(2):
                    with self.subTest(number=number):
                        if number: self.skipTest("not here")
            def tearDown(self):
                assert self._testMethodName != "test_ends_badly"
            def test_ends_badly(self): pass
        """
    )
    outcomes = Outcomes()
    pytester.inline_run("-p", "no:cacheprovider", plugins=[outcomes])
    tests = outcomes.by_class["TestStock"]
    assert {name: outcome for name, outcome in tests.items() if EVERY_PART not in name} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_is_skipped": "skipped",
        "test_fails_in_a_part": "failed",
        "test_skips_a_part": "passed",
        "test_ends_badly": "failed",
    }
    assert {name for name, outcome in tests.items() if EVERY_PART in name and outcome != "passed"} == {
        f"test_skips_a_part{EVERY_PART}"
    }
