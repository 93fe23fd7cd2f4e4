"""A report as JUnit XML, for CI systems."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from .groups import Group, group_and_property, groups, reason_of
from .outcomes import CheckRecord, FoundFault
from .report import Report

# What XML 1.0 allows; there is no way to write anything else, not even as a character reference.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(report: Report) -> str:
    """Return JUnit XML: a suite for what is stored and for each loading mode, a case for each check, and the verdict.

    A check that crashed is an error, with its traceback; one that could not decide is skipped, with its reason.

    CI systems know passed, failed and skipped, and call it green when nothing failed. An undecided report can be all
    that: each check passed or was skipped. So the verdict is a case of its own, which passes when it is sound, fails
    when it is faulty, with causes and remedies, and is an error, "could not be run", when it is undecided. It is there
    in every report, so that its history can be followed. Characters that XML does not allow become U+FFFD.
    """
    suites = [_verdict_suite(report), *(_group_suite(report, group) for group in groups(report.checks))]
    root = ElementTree.Element("testsuites", name="prunecheck")
    root.extend(suites)
    _count(root)
    ElementTree.indent(root)
    # Not ElementTree's own declaration, which names the encoding of the locale.
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _verdict_suite(report: Report) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name="verdict")
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("verdict", report.verdict), ("checkpoint", report.checkpoint), ("base", report.base)):
        if value is not None:
            ElementTree.SubElement(properties, "property", name=name, value=_allowed(value))
    case = ElementTree.SubElement(suite, "testcase", classname="prunecheck", name="verdict", time="0.000")
    if report.verdict == "undecided":
        message = f"{report.verdict_text}: see the cases that are errors, and those that were skipped"
        ElementTree.SubElement(case, "error", message=_allowed(message), type="undecided")
    elif report.verdict == "faulty":
        causes = "; ".join(fault.cause for fault in report.faults) or "checks failed, and no cause is known"
        details = "\n\n".join(map(_details, report.faults))
        _add(case, "failure", causes, report.faults[0].family if report.faults else "unexplained", details)
    _count(suite)
    return suite


def _group_suite(report: Report, group: Group) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_allowed(group.name))
    for check in group.checks:
        classname, name = map(_allowed, group_and_property(check.name))
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name=name, time=_seconds(check.seconds))
        if check.outcome == "error":
            _add(case, "error", reason_of(check), reason_of(check).partition(":")[0], check.traceback or "")
        elif check.outcome in ("skipped", "undecided"):
            ElementTree.SubElement(case, "skipped", message=_allowed(check.reason or ""))
        elif check.outcome == "failed":
            fault = _fault_of(check, report)
            _add(
                case, "failure", check.reason or "", fault.family if fault else "unexplained",
                _details(fault) if fault else "",
            )  # fmt: skip
    _count(suite)
    return suite


def _fault_of(check: CheckRecord, report: Report) -> FoundFault | None:
    """Return the fault that a failure tells of, or else the first: the causes are named, and the rest follows."""
    told = (fault for fault in report.faults if fault.cause in (check.reason or ""))
    return next(told, report.faults[0] if report.faults else None)


def _details(fault: FoundFault) -> str:
    return "\n".join(
        (f"cause: {fault.cause}", *(f"evidence: {line}" for line in fault.evidence), f"remedy: {fault.remedy}")
    )


def _add(case: ElementTree.Element, tag: str, message: str, kind: str, text: str) -> None:
    element = ElementTree.SubElement(case, tag, message=_allowed(message), type=_allowed(kind))
    element.text = _allowed(text) or None


def _count(element: ElementTree.Element) -> None:
    """Give a suite, or all suites together, the numbers that CI systems read."""
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", _seconds(sum(float(case.get("time", "0")) for case in cases)))


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _allowed(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
