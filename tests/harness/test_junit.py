"""JUnit XML: what a CI system makes of a report."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given

from harness.report.files import write_text
from harness.report.junit import junit_xml
from harness.report.outcomes import Coverage, FoundFault
from harness.report.report import Report
from tests.harness.reports import FAULT, crashed, failed, passed, report_of, reports, skipped, undecided

pytestmark = pytest.mark.newest

UNDECIDED = Coverage(keys=True, bytes=None, logits=False)


def parsed(report: Report) -> ElementTree.Element:
    """The root of a report's XML."""
    return ElementTree.fromstring(junit_xml(report))


def case(report: Report, name: str) -> ElementTree.Element:
    """The only case of a name."""
    (found,) = (each for each in parsed(report).iter("testcase") if each.get("name") == name)
    return found


def test_cases() -> None:
    """Each check is a case: its class is the loading mode, or "stored", its name the property."""
    root = parsed(report_of(passed("stored.keys", 1.5), passed("plain-float32.cache.dynamic.beam", 0.25)))
    assert [suite.get("name") for suite in root] == ["verdict", "stored", "plain-float32"]
    assert [case.attrib for case in root.iter("testcase")] == [
        {"classname": "prunecheck", "name": "verdict", "time": "0.000"},
        {"classname": "stored", "name": "keys", "time": "1.500"},
        {"classname": "plain-float32", "name": "cache.dynamic.beam", "time": "0.250"},
    ]
    assert all(not list(case) for case in root.iter("testcase"))


def test_numbers() -> None:
    """Each suite, and all together, say how many cases passed, failed and were skipped, and how long they took."""
    root = parsed(report_of(passed("stored.keys", 1.0), failed("stored.plan"), skipped("a.load"), failed("a.text")))
    names = ("tests", "failures", "errors", "skipped", "time")
    numbers = {each.get("name"): [each.get(name) for name in names] for each in (root, *root)}
    assert numbers == {
        "prunecheck": ["5", "3", "0", "1", "1.500"],
        "verdict": ["1", "1", "0", "0", "0.000"],
        "stored": ["2", "1", "0", "0", "1.250"],
        "a": ["2", "1", "0", "1", "0.250"],
    }


def test_properties() -> None:
    """Verdict, checkpoint and base are properties; a base that was not given is none."""

    def properties(report: Report) -> dict[str | None, str | None]:
        return {each.get("name"): each.get("value") for each in parsed(report).iter("property")}

    paths = {"checkpoint": "/models/slim", "base": "/models/base"}
    assert properties(report_of()) == {"verdict": "sound", **paths}
    assert properties(report_of(base=None)) == {"verdict": "sound", "checkpoint": "/models/slim"}


def test_skipped() -> None:
    """A skipped check says why."""
    (element,) = case(report_of(skipped("stored.tokenizer", "there is none")), "tokenizer")
    assert (element.tag, element.attrib) == ("skipped", {"message": "there is none"})


def test_crashed() -> None:
    """A check that crashed is an error, of the type of what was raised, with the whole traceback."""
    report = report_of(passed("stored.files"), crashed("stored.keys", "ValueError: a\x1b"))
    (element,) = case(report, "keys")
    assert (element.tag, element.attrib) == ("error", {"message": "ValueError: a\ufffd", "type": "ValueError"})
    assert (element.text or "").startswith("Traceback (most recent call last):\n")
    assert parsed(report).get("errors") == "2"  # the verdict is one, too


def test_undecided_check() -> None:
    """A check that could not decide is skipped with its reason, and the verdict is an error."""
    report = report_of(passed("stored.files"), undecided("stored.keys", "the stock model errs"))
    (element,) = case(report, "keys")
    assert (element.tag, element.attrib) == ("skipped", {"message": "the stock model errs"})
    (element,) = case(report, "verdict")
    assert (element.tag, element.get("type")) == ("error", "undecided")
    assert "1 of 2 checks could not decide" in (element.get("message") or "")


def test_failed() -> None:
    """A failure has its reason, the family of the fault that the reason tells of, and that fault's remedy."""
    other = FoundFault("gate", "no-gate", "there is no gate", (), "Add one.")
    report = report_of(failed("stored.keys", f"{FAULT.cause} (2 of 31)"), faults=(other, FAULT))
    (element,) = case(report, "keys")
    assert (element.tag, element.attrib) == ("failure", {"message": f"{FAULT.cause} (2 of 31)", "type": "keys"})
    assert element.text == (
        f"cause: {FAULT.cause}\nevidence: {FAULT.evidence[0]}\nevidence: {FAULT.evidence[1]}\nremedy: {FAULT.remedy}"
    )


def test_failed_for_a_cause_elsewhere() -> None:
    """A failure whose reason names no fault follows from the first; without any fault it is unexplained."""
    (element,) = case(report_of(failed("plain-float32.load"), faults=(FAULT,)), "load")
    assert element.get("type") == "keys"
    (element,) = case(report_of(failed("plain-float32.load")), "load")
    assert (element.get("type"), element.text) == ("unexplained", None)


def test_undecided_is_no_success() -> None:
    """An undecided report, in which nothing failed, has an error: it must not look green."""
    report = report_of(passed("stored.keys"), skipped("stored.base-bytes"), coverage=UNDECIDED)
    (element,) = case(report, "verdict")
    assert (element.tag, element.get("type")) == ("error", "undecided")
    assert parsed(report).get("errors") == "1"
    assert parsed(report).get("failures") == "0"


def test_faulty_verdict() -> None:
    """The verdict of a faulty report is a failure, with the causes; it is there even where no cause is known."""
    (element,) = case(report_of(failed("stored.keys"), faults=(FAULT,)), "verdict")
    assert (element.tag, element.attrib) == ("failure", {"message": FAULT.cause, "type": "keys"})
    assert FAULT.remedy in (element.text or "")
    (element,) = case(report_of(failed("stored.keys")), "verdict")
    assert element.attrib == {"message": "checks failed, and no cause is known", "type": "unexplained"}


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x0b", "\ud800", "\ufffe", "\uffff"])
def test_characters_that_xml_does_not_allow(character: str, tmp_path: Path) -> None:
    """What XML cannot hold is replaced, wherever it stands, and the file can be written and read."""
    text = f"a{character}<b>&"
    report = report_of(
        failed(f"{text}.{text}", text),
        skipped("stored.keys", text),
        checkpoint=text,
        base=text,
        faults=(FoundFault(text, text, text, (text,), text),),
    )
    write_text(tmp_path / "report.xml", junit_xml(report))
    root = ElementTree.parse(tmp_path / "report.xml").getroot()
    texts = [value for element in root.iter() for value in element.attrib.values()]
    assert texts.count("a\ufffd<b>&") == 10
    assert character not in (tmp_path / "report.xml").read_text(encoding="utf-8")


def test_every_other_character_is_kept() -> None:
    """Newlines, tabs, quotes and characters beyond the basic plane come back as they were."""
    text = "a\n\t\"'ü\U0001f600"
    (element,) = case(report_of(failed("stored.keys", text)), "keys")
    assert element.get("message") == text


@given(report=reports())
def test_it_is_always_well_formed(report: Report) -> None:
    """Whatever a report holds, its XML can be read, has a case for each check, and is green only if it is sound."""
    root = parsed(report)
    assert root.get("tests") == str(len(report.checks) + 1)
    assert (root.get("failures") == root.get("errors") == "0") == (report.verdict == "sound")
