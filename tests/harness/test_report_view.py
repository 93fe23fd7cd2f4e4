"""The report on a terminal: all that a reader needs, each reason once, and nothing that a checkpoint could forge."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given

from harness.report.outcomes import Coverage, FoundFault
from harness.report.report import Report
from harness.report.report_view import print_report
from tests.harness.reports import FAULT, crashed, failed, passed, printed, report_of, reports, skipped, undecided

pytestmark = pytest.mark.newest

UNTRUSTED = "the checkpoint's own code may not run: allow it with --trust-remote-code"
NO_LOGITS = Coverage(keys=True, bytes="base", logits=False)


def lines(report: Report, **console: Any) -> list[str]:
    """The lines that are printed."""
    return printed(print_report, report, **console).splitlines()


def block(report: Report, title: str) -> list[str]:
    """The lines below a title, up to an empty one; none if there is no such title."""
    every = lines(report)
    if not any(line.startswith(title) for line in every):
        return []
    start = next(number for number, line in enumerate(every) if line.startswith(title)) + 1
    end = next((number for number in range(start, len(every)) if not every[number]), len(every))
    return every[start:end]


def rows(report: Report) -> dict[str, list[str]]:
    """The cells of the table, by its first column."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines(report) if line.startswith("│")]
    return {first: others for first, *others in cells}


def test_summary() -> None:
    """The first lines say what was judged, against which base and plan, and the verdict."""
    report = report_of(environment={"plan_from": "pruning.json"})
    assert lines(report)[:4] == [
        "checkpoint:  /models/slim",
        "base:        /models/base",
        "plan:        self_attn 0,2, mlp 1 (from: pruning.json)",
        "verdict:     sound: the pruned checkpoint is the model that was meant",
    ]


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (report_of(failed("stored.keys"), passed("stored.files")), "faulty: 1 of 2 checks failed"),
        (report_of(coverage=Coverage(True, None, False)), "undecided: bytes and logits could not be checked"),
        (
            report_of(coverage=Coverage(True, None, False, partial_allowed=True)),
            "sound: as far as it was checked, the pruned checkpoint is the model that was meant; "
            "bytes and logits were not checked",
        ),
    ],
)
def test_verdict(report: Report, verdict: str) -> None:
    """A verdict that is not simply sound says how many checks failed, or what was not checked."""
    assert lines(report)[3] == f"verdict:     {verdict}"


def test_a_row_for_each_group() -> None:
    """What is stored is one row, and so is each loading mode, with its outcomes and seconds."""
    report = report_of(
        passed("stored.keys", 0.5),
        skipped("stored.tokenizer"),
        passed("plain-float32.load", 1.0),
        failed("plain-float32.logits.identity.random", seconds=0.25),
        passed("plain-float32.cache.dynamic.beam", 0.5),
    )
    assert rows(report) == {"on disk": ["1", "0", "1", "0.5"], "plain-float32": ["2", "1", "0", "1.8"]}


def test_equal_reasons_are_told_once() -> None:
    """A reason that several checks share, in one mode or in several, stands once, with how many they are."""
    report = report_of(
        passed("plain-float32.load"),
        skipped("plain-float32.logits.identity.natural"),
        skipped("plain-float32.text.greedy"),
        passed("plain-bfloat16.load"),
        skipped("plain-bfloat16.logits.identity.natural"),
        skipped("plain-bfloat16.round-trip", "another reason"),
    )
    assert block(report, "skipped") == [
        "plain-float32.logits.identity.natural and 2 more  there is no tokenizer",
        "plain-bfloat16.round-trip                         another reason",
    ]


def test_modes_that_were_skipped_as_a_whole() -> None:
    """Modes of which nothing ran have no row: those with the same reason, the one most told, are one line."""
    report = report_of(
        skipped("stored.code"),
        passed("plain-float32.load"),
        skipped("gpu-8bit.load", "there is no GPU"),
        skipped("gpu-float32.load", "there is no GPU"),
        skipped("gpu-float32.cache.none.reused", "there is no cache"),
        skipped("gpu-float32.text.greedy", "there is no GPU"),
        skipped("auto-8bit.load", "another reason"),
    )
    assert list(rows(report)) == ["on disk", "plain-float32"]
    assert block(report, "skipped") == [
        "stored.code            there is no tokenizer",
        "gpu-8bit, gpu-float32  there is no GPU",
        "auto-8bit              another reason",
    ]


def test_failures_are_told_once_a_group() -> None:
    """The first failure of a group stands for the others, and a reason that groups share stands once."""
    report = report_of(
        failed("plain-float32.load", "off by 1"),
        failed("plain-float32.text.greedy", "off by 2"),
        failed("auto-float32.load", "off by 1"),
        failed("gpu-float32.load", "off by 3"),
    )
    assert block(report, "failed") == [
        "plain-float32.load and 2 more  off by 1",
        "gpu-float32.load               off by 3",
    ]


def test_faults() -> None:
    """Each fault is told with family, cause, evidence and remedy."""
    other = FoundFault("gate", "no-gate", "there is no gate", (), "Add one.")
    report = report_of(failed("stored.keys"), faults=(FAULT, other))
    assert block(report, "fault 1 of 2: keys (bytes-differ)") == [
        f"cause:     {FAULT.cause}",
        f"evidence:  {FAULT.evidence[0]}",
        f"           {FAULT.evidence[1]}",
        f"remedy:    {FAULT.remedy}",
    ]
    assert block(report, "fault 2 of 2: gate (no-gate)") == ["cause:   there is no gate", "remedy:  Add one."]
    assert block(report_of(failed("stored.keys"), faults=(FAULT,)), "fault: keys (bytes-differ)")


def test_a_failure_without_a_cause() -> None:
    """Where checks failed and no fault is named, that is said."""
    assert block(report_of(failed("stored.keys")), "fault") == ["no cause is known for what failed"]


def test_findings() -> None:
    """Findings are listed, and not called faults."""
    report = report_of(findings=("a tensor is zero", "a file was changed"))
    assert block(report, "findings, which are no faults") == ["-  a tensor is zero", "-  a file was changed"]


def test_undecided() -> None:
    """An undecided report says what was not checked, why, each reason once, and with which exit code it ends."""
    report = report_of(
        passed("stored.files"),
        skipped("stored.base-bytes", "without --base there is nothing to compare with"),
        skipped("stored.manifest-bytes", "there is no manifest"),
        skipped("plain-float32.logits.identity.random", UNTRUSTED),
        skipped("plain-float32.logits.identity.long", UNTRUSTED),
        coverage=Coverage(keys=False, bytes=None, logits=False),
    )
    title = "undecided (exit code 3): nothing that was checked is wrong, but this was not checked"
    assert block(report, title) == [
        "keys:    no check of these was among those that were asked for",
        "bytes:   without --base there is nothing to compare with; there is no manifest",
        f"logits:  {UNTRUSTED}",
    ]


@pytest.mark.parametrize(
    ("report", "options"),
    [
        (report_of(coverage=NO_LOGITS), ["--allow-partial"]),
        (report_of(coverage=NO_LOGITS, base=None), ["--base DIR", "--allow-partial"]),
        (
            report_of(passed("stored.keys"), skipped("plain-float32.load", UNTRUSTED), coverage=NO_LOGITS),
            ["--trust-remote-code", "--allow-partial"],
        ),
        (
            report_of(coverage=NO_LOGITS, environment={"options": {"keyword": "cache"}}),
            ["-k", "--allow-partial"],
        ),
        (report_of(skipped("stored.keys"), coverage=NO_LOGITS), []),
        (report_of(), []),
        (report_of(failed("stored.keys"), base=None, coverage=NO_LOGITS), []),
    ],
)
def test_what_to_do(report: Report, options: list[str]) -> None:
    """What would decide it is advised, and only then; what was not checked at all cannot be accepted as enough."""
    assert [line.partition("  ")[0] for line in block(report, "what to do")] == options


HOSTILE = "[red]a[/red]\x1b[2J\r\nverdict: sound\u202e\ud800\x9b"
SHOWN = r"[red]a[/red]\x1b[2J\r\nverdict: sound\u202e\ud800\x9b"


def test_hostile_text_is_shown_as_it_is() -> None:
    """Markup, escape sequences, newlines and what reverses text are shown, wherever they stand."""
    report = report_of(
        failed(f"{HOSTILE}.load", HOSTILE),
        skipped("stored.keys", HOSTILE),
        checkpoint=HOSTILE,
        base=HOSTILE,
        faults=(FoundFault("keys", HOSTILE, HOSTILE, (HOSTILE,), HOSTILE),),
        findings=(HOSTILE,),
        environment={"plan_from": HOSTILE},
    )
    text = printed(print_report, report)
    assert text.count(SHOWN) == 12
    assert not any(line.startswith("verdict: sound") for line in text.splitlines())
    # On a terminal, too, there are no escapes but those of rich's styles.
    assert "\x1b" not in printed(print_report, report, force_terminal=True, color_system=None)


@given(report=reports())
def test_no_text_reaches_the_terminal_raw(report: Report) -> None:
    """Whatever a report holds, it is printed, and only newlines of our own control the terminal."""
    text = printed(print_report, report)
    assert {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")} == {"\n"}


def test_long_reasons_are_shortened() -> None:
    """Of a long reason the beginning is shown; JSON has the whole."""
    text = printed(print_report, report_of(failed("stored.keys", "x" * 500)))
    assert "x ..." in text
    assert text.count("x") == 196


def test_names_and_paths_are_whole_in_a_narrow_terminal() -> None:
    """A path that a reader wants to copy is never cut, however narrow the terminal is."""
    path, name = "/models/" + "p" * 200, "plain-float32." + "n" * 100
    text = printed(print_report, report_of(passed("plain-float32.load"), skipped(name), checkpoint=path), 40)
    assert text.count("p") >= 200
    assert text.count("n") >= 100
    assert "…" not in text


def test_it_is_wide_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """By default it is written to stdout, in lines wide enough for a file."""
    print_report(report_of(passed("stored.files"), skipped("stored.tokenizer", "w" * 100)))
    assert f"stored.tokenizer  {'w' * 100}" in capsys.readouterr().out


def test_crashes_stand_first() -> None:
    """Checks that crashed stand before all else, a row for each last line of a traceback; whole ones on request."""
    report = report_of(
        passed("stored.keys"),
        crashed("plain-float32.load", "KeyError: 'mode'"),
        crashed("plain-float32.poison", "KeyError: 'mode'"),
        crashed("plain-8bit.load", f"ValueError: {HOSTILE}"),
    )
    every = lines(report)
    assert every[0].startswith("crashed: ")
    assert every[1:3] == [
        "plain-float32.load and 1 more  KeyError: 'mode'",
        f"plain-8bit.load                ValueError: {SHOWN}",
    ]
    assert every[3] == ""
    assert "verdict:     undecided: 3 of 4 checks crashed" in every
    assert rows(report)["plain-float32"] == ["0", "0", "2", "0", "0.5"]
    assert not any("Traceback" in line for line in every)
    shown = printed(print_report, report, debug=True).splitlines()
    assert [line for line in shown if line.startswith("Traceback")] == ["Traceback (most recent call last):"] * 3
    assert f"ValueError: {SHOWN}" in "\n".join(shown)
    assert block(report, "what to do")[0].startswith("--debug  ")
    assert not any(line.startswith("--allow-partial") for line in block(report, "what to do"))


def test_undecided_checks() -> None:
    """Checks that could not decide are told with their reasons, and leave the verdict open; --allow-partial helps."""
    report = report_of(
        passed("stored.keys"), undecided("a.cache", "upstream errs"), undecided("b.cache", "upstream errs")
    )
    assert block(report, "undecided checks, which looked and could not decide") == ["a.cache and 1 more  upstream errs"]
    assert "verdict:     undecided: 2 of 3 checks could not decide" in lines(report)
    title = "undecided (exit code 3): nothing that was checked is wrong, but this was not checked"
    assert block(report, title) == ["a.cache and 1 more:  upstream errs"]
    assert [line.partition("  ")[0] for line in block(report, "what to do")] == ["--allow-partial"]
    allowed = report_of(*report.checks, coverage=Coverage(True, "base", True, partial_allowed=True))
    assert lines(allowed)[3].endswith("is the model that was meant; 2 of 3 checks could not decide")


def test_a_crash_beside_a_fault() -> None:
    """A faulty verdict says that checks crashed, too."""
    report = report_of(failed("stored.keys"), crashed("stored.files"), faults=(FAULT,))
    assert "verdict:     faulty: 1 of 2 checks failed; 1 of 2 checks crashed" in lines(report)
