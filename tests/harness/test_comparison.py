"""Two reports compared: what changed, what got worse, and what is only noise."""

import json
import math
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from harness.report.comparison import Change, CheckChange, Comparison, NumberChange, compare_reports
from harness.report.comparison_view import print_comparison
from harness.report.outcomes import CheckRecord, Coverage, FoundFault
from harness.report.report import Report
from tests.harness.reports import FAULT, crashed, failed, passed, printed, report_of, reports, skipped, undecided

pytestmark = pytest.mark.newest

UNDECIDED = Coverage(keys=True, bytes=None, logits=False)
NAME = "plain-float32.logits.identity.random"


def compared(before: CheckRecord, after: CheckRecord) -> Comparison:
    """The comparison of two reports of one check each."""
    return compare_reports(report_of(before), report_of(after))


@given(report=reports())
def test_a_report_is_no_regression_of_itself(report: Report) -> None:
    """Compared with itself, whatever it holds, a report changed in nothing."""
    comparison = compare_reports(report, report)
    changes = (comparison.environment, comparison.checks, comparison.numbers, comparison.faults, comparison.findings)
    assert not any(changes)
    assert not comparison.is_regression


SOUND, FAULTY = report_of(passed("a.load")), report_of(passed("a.load"), faults=(FAULT,))
OPEN = report_of(passed("a.load"), coverage=UNDECIDED)


@pytest.mark.parametrize(
    ("before", "after", "is_regression"),
    [
        (SOUND, OPEN, True), (SOUND, FAULTY, True), (OPEN, FAULTY, True),
        (OPEN, SOUND, False), (FAULTY, SOUND, False), (FAULTY, OPEN, False),
    ],
)  # fmt: skip
def test_a_worse_verdict_is_a_regression(before: Report, after: Report, is_regression: bool) -> None:
    """From sound over undecided to faulty is worse, though each check came to the same."""
    comparison = compare_reports(before, after)
    assert comparison.verdict == Change("verdict", before.verdict, after.verdict)
    assert not comparison.checks
    assert comparison.is_regression is is_regression


ALLOWED = Coverage(keys=True, bytes=None, logits=False, partial_allowed=True)


@pytest.mark.parametrize(
    ("before", "after", "is_regression"),
    [
        (passed("a.load"), failed("a.load", "off"), True),
        (passed("a.load"), skipped("a.load", "no GPU"), True),
        (passed("a.load"), crashed("a.load"), True),
        (skipped("a.load", "no GPU"), crashed("a.load"), True),
        (failed("a.load", "off"), crashed("a.load"), True),
        (crashed("a.load"), passed("a.load"), False),
        (passed("a.load"), undecided("a.load"), True),
        (passed("a.load"), None, True),
        (failed("a.load", "off"), passed("a.load"), False),
        (failed("a.load", "off"), skipped("a.load", "no GPU"), False),
        (skipped("a.load", "no GPU"), passed("a.load"), False),
        (skipped("a.load", "no GPU"), None, False),
        (None, passed("a.load"), False),
        (None, skipped("a.load", "no GPU"), False),
    ],
)
def test_checks_that_changed(before: CheckRecord | None, after: CheckRecord | None, is_regression: bool) -> None:
    """A check that passed and does not, or that crashes now, is a regression; any other change is only told."""
    other = passed("stored.files")
    comparison = compare_reports(*(report_of(*filter(None, (other, check))) for check in (before, after)))
    outcomes = [None if check is None else check.outcome for check in (before, after)]
    reason = (after and after.reason) or (before and before.reason)
    assert comparison.checks == (CheckChange("a.load", *outcomes, reason),)  # type: ignore[arg-type]
    assert comparison.checks[0].is_regression is is_regression
    assert comparison.is_regression is is_regression


@pytest.mark.parametrize(
    ("before", "after", "is_shown"),
    [
        (1e-5, 9e-5, False),
        (1e-5, 2e-4, True),
        (2e-4, 1e-5, False),
        (0.0, 3e-6, False),  # the rounding of float32
        (0.0, 3e-5, True),
        (1e-18, 1e-9, False),
        (-1.0, -11.0, True),
        (1.0, math.nan, True),
        (1.0, math.inf, True),
        (math.nan, math.nan, False),
        (math.nan, 1.0, False),
    ],
)
def test_numbers_that_grew(before: float, after: float, is_shown: bool) -> None:
    """A number is shown that grew more than tenfold, or is none any more, but not one as small as rounding."""
    comparison = compared(passed(NAME, drift=before), passed(NAME, drift=after))
    assert bool(comparison.numbers) is is_shown
    if is_shown:
        change = comparison.numbers[0]
        assert (change.check, change.number, change.before, change.allowed) == (NAME, "drift", before, None)
    assert not comparison.is_regression


@pytest.mark.parametrize(
    ("before", "after", "is_shown"),
    [(0.008, 0.009, False), (0.008, 0.012, True), (0.012, 0.008, True), (math.nan, 0.008, True), (0.02, 0.03, False)],
)
def test_numbers_that_crossed_what_is_allowed(before: float, after: float, is_shown: bool) -> None:
    """A number is shown that crossed its limit, either way; the limit is of the relative difference, where that is."""
    checks = (passed(NAME, difference=5 * value, relative=value, allowed=0.01) for value in (before, after))
    comparison = compared(*checks)
    assert [change.number for change in comparison.numbers] == ["relative"] * is_shown
    assert all(change.allowed == 0.01 for change in comparison.numbers)


def test_the_limit_of_a_check_that_failed() -> None:
    """A failure records no limit, so the limit of before counts, for the difference if nothing is relative."""
    comparison = compared(passed(NAME, difference=0.008, allowed=0.01), failed(NAME, difference=0.012))
    assert comparison.numbers == (NumberChange(NAME, "difference", 0.008, 0.012, 0.01),)


def test_numbers_in_one_report_alone() -> None:
    """Numbers and checks that only one of the reports has are compared with nothing."""
    assert not compared(passed(NAME, drift=0.0), passed(NAME, surprise=5.0)).numbers
    assert not compared(passed(NAME, drift=0.0), passed("a.load", drift=5.0)).numbers


def test_environment() -> None:
    """Of the environment, what differs is told by its dotted name, also what is there in one of the two alone."""
    before = report_of(environment={"python": "3.11", "versions": {"torch": "2.12", "transformers": "5.0.0"}})
    after = report_of(
        environment={"python": "3.11", "versions": {"torch": "2.12", "transformers": "5.23.0"}, "cpus": 2}
    )
    assert compare_reports(before, after).environment == (
        Change("versions.transformers", "5.0.0", "5.23.0"),
        Change("cpus", None, 2),
    )


def test_plan_checkpoint_and_base() -> None:
    """What was judged is told of both reports."""
    after = report_of(checkpoint="/models/other", base=None, plan={"self_attn": [], "mlp": [1]})
    comparison = compare_reports(report_of(), after)
    assert comparison.checkpoint == Change("checkpoint", "/models/slim", "/models/other")
    assert comparison.base == Change("base", "/models/base", None)
    assert comparison.plan == Change("plan", {"self_attn": [0, 2], "mlp": [1]}, {"self_attn": [], "mlp": [1]})


def test_seconds() -> None:
    """The seconds of each group that both have are compared, whatever its checks came to."""
    before = report_of(passed("stored.keys", 1.0), passed("a.load", 1.0), passed("a.text", 2.0), passed("b.load", 1.0))
    after = report_of(passed("stored.keys", 1.0), failed("a.load", seconds=6.0), passed("c.load", 1.0))
    assert compare_reports(before, after).seconds == (Change("stored", 1.0, 1.0), Change("a", 3.0, 6.0))


def test_faults_and_findings() -> None:
    """Faults and findings of one report alone are told; a fault whose numbers changed is the same fault."""
    changed = replace(FAULT, cause="the bytes of 3 of 31 kept tensors are not the base's", evidence=())
    gone = FoundFault("gate", "no-gate", "there is no gate", (), "Add one.")
    new = replace(gone, id="open-gate")
    before = report_of(faults=(FAULT, gone), findings=("both", "gone"))
    comparison = compare_reports(before, report_of(faults=(new, changed), findings=("new", "both")))
    assert comparison.faults == (Change("gate (no-gate)", gone, None), Change("gate (open-gate)", None, new))
    assert comparison.findings == (Change("gone", "gone", None), Change("new", None, "new"))


@given(before=reports(), after=reports())
def test_json(before: Report, after: Report) -> None:
    """A comparison of any two reports is JSON, and says whether it is a regression."""
    comparison = compare_reports(before, after)
    content = json.loads(json.dumps(comparison.to_dict()))
    assert content["is_regression"] is comparison.is_regression
    assert list(content) == [
        "schema", "is_regression", "checkpoint", "base", "plan", "verdict", "environment", "checks", "numbers",
        "seconds", "faults", "findings",
    ]  # fmt: skip


def text_of(before: Report, after: Report, **console: Any) -> str:
    """What is printed of a comparison, without the lines of its tables."""
    printed_text = printed(print_comparison, compare_reports(before, after), **console)
    lines = (" ".join(line.replace("│", " ").split()) for line in printed_text.splitlines())
    return "\n".join(lines)


def test_a_regression_is_printed() -> None:
    """What got worse is printed: the versions, the check and why, the new fault and its remedy, and that it is one."""
    before = report_of(passed("stored.keys", 1.0), environment={"versions": {"torch": "2.12"}}, findings=("old one",))
    after = report_of(
        failed("stored.keys", "keys are missing", 2.0), faults=(FAULT,), environment={"versions": {"torch": None}},
        base=None, findings=("new one",),
    )  # fmt: skip
    text = text_of(before, after)
    for line in (
        "base /models/base none was given",
        "plan self_attn 0,2, mlp 1 self_attn 0,2, mlp 1",
        "verdict sound faulty",
        "versions.torch 2.12 none",
        "stored.keys passed failed keys are missing",
        "new fault: keys (bytes-differ)",
        f"remedy: {FAULT.remedy}",
        "new findings\nnew one",
        "findings that are gone\nold one",
        "on disk 1.0 2.0 2.00",
        "One run each: what else the machine did is in these numbers, too.",
        "regression: faulty instead of sound; 1 of the checks that passed pass no more",
    ):
        assert f"\n{line}\n" in f"{text}\n"
    assert f"fault that is gone: keys (bytes-differ)\n{FAULT.cause}\n" in text_of(after, before)
    assert text_of(after, before).endswith("no regression: whatever passed before passes still")


def test_nothing_changed() -> None:
    """Where nothing changed, there is nothing between what was judged and the seconds."""
    text = text_of(report_of(), report_of())
    assert [line for line in text.splitlines() if line in ("what they were judged with", "new findings")] == []
    assert "came to something else" not in text
    assert "grew" not in text
    assert text.endswith("no regression: whatever passed before passes still")


def test_changes_are_folded() -> None:
    """Checks of a mode that changed alike are one row, and so are its numbers, of which the largest is shown."""
    names = ("a.load", "a.text", "b.load")
    before = report_of(*(passed(name, drift=0.0) for name in names), *(skipped(f"{x}.load", "no GPU") for x in "cd"))
    gone = text_of(before, report_of())
    assert (
        "\na.load and 1 more passed not run\nb.load passed not run\nc.load and 1 more skipped not run no GPU\n" in gone
    )
    after = report_of(*(failed(name, f"off: {name}", drift=len(name) / 2) for name in names))
    text = text_of(before, after)
    assert "\na.load and 1 more passed failed off: a.load\nb.load passed failed off: b.load\n" in text
    assert "\na.load and 1 more drift 0 3\nb.load drift 0 3\n" in text


def test_numbers_are_printed_with_their_limit() -> None:
    """A number stands beside what is allowed, and NaN is the largest of all."""
    before = report_of(*(passed(f"a.{use}", difference=0.0, allowed=1e-05) for use in "xyz"))
    values = {"x": 1.0, "y": math.nan, "z": 5.0}
    after = report_of(*(passed(f"a.{use}", difference=value, allowed=1e-05) for use, value in values.items()))
    assert "\na.y and 2 more difference 0 nan 1e-05\n" in text_of(before, after)


def test_hostile_text_is_shown_as_it_is() -> None:
    """Markup and escape sequences of a report that is not ours are shown, not obeyed."""
    hostile, shown = "[red]a[/red]\x1b[2J\n", r"[red]a[/red]\x1b[2J\n"
    outcome: Any = hostile
    before = report_of(CheckRecord(f"{hostile}.load", outcome, None, 0.0), environment={hostile: hostile})
    after = report_of(
        failed(f"{hostile}.load", hostile), checkpoint=hostile, base=hostile, findings=(hostile,),
        faults=(FoundFault("keys", hostile, hostile, (hostile,), hostile),),
    )  # fmt: skip
    text = printed(print_comparison, compare_reports(before, after))
    assert text.count(shown) == 13
    assert "\x1b" not in text


@given(before=reports(), after=reports())
def test_no_text_reaches_the_terminal_raw(before: Report, after: Report) -> None:
    """Whatever two reports hold, what is printed of them has no control characters but our own newlines."""
    text = printed(print_comparison, compare_reports(before, after))
    assert {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")} == {"\n"}
