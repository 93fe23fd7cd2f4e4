"""The report: its verdict, and its JSON, which other programs read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from harness.errors import CannotRun
from harness.report.files import require_writable, write_text
from harness.report.outcomes import EXIT_CODES, CheckRecord, Coverage
from harness.report.report import Report
from tests.harness.reports import COMPLETE, FAULT, crashed, failed, passed, report_of, reports, skipped, undecided

pytestmark = pytest.mark.newest

GOLDEN = Path(__file__).parents[2] / "fixtures" / "report.json"
GOLDEN_1 = GOLDEN.with_name("report-0.1.0.json")

GOLDEN_REPORT = Report(
    checkpoint="/models/slim",
    base="/models/base",
    plan={"self_attn": [0, 2], "mlp": [1]},
    checks=(
        CheckRecord("stored.keys", "passed", None, 0.001, {"keys": 31}),
        CheckRecord("stored.base-bytes", "failed", f"{FAULT.cause} ({'; '.join(FAULT.evidence)})", 0.5),
        CheckRecord(
            "plain-float32.logits.identity.random", "passed", None, 0.25,
            {"difference": 1.5e-06, "relative": 2.5e-07, "allowed": 1e-05},
        ),
        CheckRecord("auto-8bit.load", "skipped", "without a GPU nothing is placed", 0.0),
        crashed("plain-float32.poison"),
        undecided("plain-float32.cache.dynamic.beam"),
    ),
    coverage=Coverage(keys=True, bytes="manifest", logits=True, partial_allowed=False),
    faults=(FAULT,),
    findings=("1 kept tensor(s) are all zero: lm_head.weight",),
    environment={
        "python": "3.11.7",
        "versions": {"prunecheck": "0.1.0", "torch": "2.13.0", "bitsandbytes": None},
        "devices": ["cpu"],
        "options": {"dtype": ["float32"], "keyword": None, "trust_remote_code": False},
    },
)  # fmt: skip


@given(report=reports())
def test_round_trip(report: Report) -> None:
    """A report that is written as JSON and read again is the same report."""
    assert Report.from_dict(report.to_dict()) == report
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_golden_file(tmp_path: Path) -> None:
    """The JSON of schema 2 is what it was, byte for byte, and is read back: whoever reads it may rely on it."""
    path = tmp_path / "report.json"
    write_text(path, json.dumps(GOLDEN_REPORT.to_dict(), indent=2) + "\n")
    assert path.read_bytes() == GOLDEN.read_bytes()
    assert Report.from_file(GOLDEN) == GOLDEN_REPORT


def test_reports_of_0_1_0_are_read() -> None:
    """A report of schema 1, which has no tracebacks and fewer outcomes, is read as it was written."""
    content = json.loads(GOLDEN_1.read_text(encoding="utf-8"))
    assert content["schema"] == 1
    report = Report.from_file(GOLDEN_1)
    assert report == replace(GOLDEN_REPORT, checks=GOLDEN_REPORT.checks[:4])
    assert all(check.traceback is None for check in report.checks)


def test_schema() -> None:
    """These keys, in this order, are schema 2: whoever changes one changes the number."""
    content = GOLDEN_REPORT.to_dict()
    assert list(content) == [
        "schema", "verdict", "checkpoint", "base", "plan", "checks", "coverage", "faults", "findings", "environment",
    ]  # fmt: skip
    assert content["schema"] == 2
    assert list(content["checks"][0]) == ["name", "outcome", "reason", "seconds", "numbers", "traceback"]
    assert list(content["coverage"]) == ["keys", "bytes", "logits", "partial_allowed"]
    assert list(content["faults"][0]) == ["family", "id", "cause", "evidence", "remedy"]


NOTHING = Coverage(keys=False, bytes=None, logits=False)
PARTIAL = Coverage(keys=True, bytes=None, logits=False, partial_allowed=True)


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (report_of(passed("stored.keys")), "sound"),
        (report_of(passed("stored.keys"), skipped("auto-8bit.load")), "sound"),
        (report_of(passed("stored.keys"), coverage=Coverage(True, "manifest", True)), "sound"),
        (report_of(passed("stored.keys"), coverage=Coverage(False, "base", True)), "undecided"),
        (report_of(passed("stored.keys"), coverage=Coverage(True, None, True)), "undecided"),
        (report_of(passed("stored.keys"), coverage=Coverage(True, "base", False)), "undecided"),
        (report_of(passed("stored.keys"), coverage=PARTIAL), "sound"),
        (report_of(skipped("stored.keys"), coverage=PARTIAL), "undecided"),
        (report_of(skipped("stored.keys"), coverage=NOTHING), "undecided"),
        (report_of(failed("stored.keys")), "faulty"),
        (report_of(failed("stored.keys"), coverage=PARTIAL), "faulty"),
        (report_of(failed("stored.keys"), coverage=NOTHING), "faulty"),
        (report_of(passed("stored.keys"), faults=(FAULT,)), "faulty"),
        (report_of(passed("stored.keys"), crashed("plain-float32.poison")), "undecided"),
        (report_of(passed("stored.keys"), crashed("plain-float32.poison"), coverage=PARTIAL), "undecided"),
        (report_of(failed("stored.keys"), crashed("plain-float32.poison")), "faulty"),
        (report_of(passed("stored.keys"), undecided("plain-float32.poison")), "undecided"),
        (report_of(passed("stored.keys"), undecided("plain-float32.poison"), coverage=PARTIAL), "sound"),
        (report_of(undecided("stored.keys"), coverage=PARTIAL), "undecided"),
        (report_of(failed("stored.keys"), undecided("plain-float32.poison")), "faulty"),
    ],
)
def test_verdict(report: Report, verdict: str) -> None:
    """A failure makes it faulty; else it is sound if keys, bytes and logits were checked, or less is allowed.

    A crash keeps it from being sound, whatever is allowed, and so does an undecided check, unless less is allowed.
    """
    assert report.verdict == verdict
    assert report.to_dict()["verdict"] == verdict


def test_exit_codes() -> None:
    """Sound ends with 0, faulty with 1, undecided with 3; 2 is what could not run."""
    assert EXIT_CODES == {"sound": 0, "faulty": 1, "undecided": 3}


def test_the_verdict_is_not_read() -> None:
    """A verdict that was edited in the file changes nothing: it follows from the checks."""
    assert Report.from_dict(GOLDEN_REPORT.to_dict() | {"verdict": "sound"}).verdict == "faulty"


def without(name: str) -> dict[str, Any]:
    """The golden report without a key."""
    return {key: value for key, value in GOLDEN_REPORT.to_dict().items() if key != name}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a report of schema 1 or 2"),
        ("{}", "not a report of schema 1 or 2"),
        (json.dumps(GOLDEN_REPORT.to_dict() | {"schema": 3}), "not a report of schema 1 or 2"),
        (json.dumps(without("plan")), "not a report of schema 1 or 2: Object missing required field `plan`"),
        (json.dumps(GOLDEN_REPORT.to_dict()).replace('"traceback": null', '"traceback": 5'), "`$.checks[0].traceback`"),
        (json.dumps(GOLDEN_REPORT.to_dict() | {"base": 5}), "`$.base`"),
        (json.dumps(GOLDEN_REPORT.to_dict() | {"environment": []}), "`$.environment`"),
        (json.dumps(GOLDEN_REPORT.to_dict() | {"findings": [5]}), "`$.findings[0]`"),
        (json.dumps(GOLDEN_REPORT.to_dict()).replace('"failed"', '"lost"'), "Invalid enum value 'lost'"),
        (json.dumps(GOLDEN_REPORT.to_dict()).replace("1e-05", '"1e-05"'), "`$.checks["),
        ("[" * 100_000, "it is nested too deeply"),
        (
            json.dumps(GOLDEN_REPORT.to_dict() | {"checks": [{"name": "stored.keys"}]}),
            "missing required field `outcome`",
        ),
        (json.dumps(GOLDEN_REPORT.to_dict() | {"checks": 3}), "`$.checks`"),
        ("{", "Expecting property name"),
        ("", "Expecting value"),
    ],
)
def test_a_file_that_is_no_report(tmp_path: Path, text: str, message: str) -> None:
    """Whatever is no report is refused in one line that names the file."""
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(CannotRun) as caught:
        Report.from_file(path)
    assert str(caught.value).startswith(f"{path} is not a report of prunecheck: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, and bytes that are no text, are refused in one line that names the file."""
    with pytest.raises(CannotRun) as caught:
        Report.from_file(tmp_path / "none.json")
    assert str(caught.value) == f"{tmp_path / 'none.json'} cannot be read: No such file or directory"
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CannotRun, match="is not a report of prunecheck") as caught:
        Report.from_file(tmp_path / "bytes.json")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """That a report cannot be written is said before any work, and again if it is found out only then."""
    require_writable(None)
    require_writable(tmp_path / "report.json")
    with pytest.raises(CannotRun, match="cannot be written: it is a directory"):
        require_writable(tmp_path)
    missing = tmp_path / "none" / "report.json"
    with pytest.raises(CannotRun) as caught:
        require_writable(missing)
    assert str(caught.value) == f"{missing} cannot be written: {missing.parent} is no directory"
    with pytest.raises(CannotRun, match="cannot be written: No such file or directory"):
        write_text(missing, "")


def test_coverage_is_complete_with_all_three() -> None:
    """Only keys, bytes and logits together are complete, whichever the bytes were compared with."""
    assert COMPLETE.is_complete
    assert Coverage(True, "manifest", True).is_complete
    assert not any(
        each.is_complete
        for each in (Coverage(False, "base", True), Coverage(True, None, True), Coverage(True, "base", False), PARTIAL)
    )
