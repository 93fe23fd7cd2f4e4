"""What a report tells people, in words: the terminal and the HTML page say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .groups import LONGEST_REASON, by_reason, groups, reason_of
from .notebook import plan_text
from .outcomes import EXIT_CODES, CheckRecord
from .report import PARTS, Report
from .terminal import and_more, shortened

UNDECIDED = (
    f"undecided (exit code {EXIT_CODES['undecided']}): nothing that was checked is wrong, but this was not checked"
)
CRASHED = "crashed: a check that ends in an error of the software says nothing, so the verdict is never sound"
CAME_TO_NOTHING = "undecided checks, which looked and could not decide"
NO_CAUSE = "no cause is known for what failed"
FINDINGS = "findings, which are no faults"


def plan_and_source(report: Report) -> str:
    """Return the plan that was meant, and where it was read."""
    plan = plan_text(report.plan)
    source = report.environment.get("plan_from")
    return f"{plan} (from: {source})" if source else plan


def coverage_rows(report: Report) -> list[tuple[str, str]]:
    """Return what the verdict rests on: keys, bytes and logits, and what was seen of each."""
    compared = {"base": "each kept byte is the base's", "manifest": "each kept byte has the manifest's checksum"}
    right = {
        "keys": "stored are those, and only those, that the plan keeps",
        "bytes": compared.get(report.coverage.bytes or "", ""),
        "logits": "those of an independent reference, within the tolerance",
    }
    rows, unchecked = [], report.unchecked_parts
    for part, looks in PARTS.items():
        failed = any(check.outcome == "failed" and looks(check.name) for check in report.checks)
        rows.append((part, "not as they should be" if failed else "not checked" if part in unchecked else right[part]))
    return rows


def why_unchecked(report: Report, part: str) -> list[str]:
    """Return the reasons for which keys, bytes or logits were not checked."""
    looked = [check for check in report.checks if PARTS[part](check.name)]
    return list(dict.fromkeys(map(reason_of, looked))) or ["no check of these was among those that were asked for"]


def open_rows(report: Report) -> list[tuple[str, str]]:
    """Return what keeps a report from being decided, and why: what was not checked, crashes, and undecided checks."""
    unchecked = [(part, "; ".join(why_unchecked(report, part))) for part in report.unchecked_parts]
    return [*unchecked, *report.crashed_rows, *undecided_rows(report)]


def undecided_rows(report: Report) -> list[tuple[str, str]]:
    """Return the checks that looked and could not decide, a row for each reason."""
    return by_reason(check for check in report.checks if check.outcome == "undecided")


def tracebacks(report: Report) -> list[tuple[str, str]]:
    """Return every traceback once, behind the names of the checks that it ended."""
    names: dict[str, list[str]] = {}
    for check in report.checks:
        if check.traceback is not None:
            names.setdefault(check.traceback, []).append(check.name)
    return [(and_more(checks[0], len(checks)), text) for text, checks in names.items()]


def failed_rows(report: Report) -> list[tuple[str, str]]:
    """Return the first failure of each group; what one fault leads to differs from check to check in numbers alone."""
    first: dict[str, list[CheckRecord]] = {}
    for group in groups(report.checks):
        if failures := group.of("failed"):
            first.setdefault(reason_of(failures[0]), []).extend(failures)
    return [
        (and_more(checks[0].name, len(checks)), shortened(reason, LONGEST_REASON)) for reason, checks in first.items()
    ]


def skipped_rows(report: Report) -> list[tuple[str, str]]:
    """Return what was skipped, a row for each reason: checks, and then ways of loading of which nothing was checked."""
    modes: dict[str, list[str]] = {}
    checks: list[CheckRecord] = []
    for group in groups(report.checks):
        skipped = group.of("skipped")
        if group.is_skipped_mode:
            # What kept the model from being loaded is the reason of most; the others would have been skipped anyhow.
            reason = Counter(reason_of(check) for check in skipped).most_common(1)[0][0]
            modes.setdefault(reason, []).append(group.title)
        else:
            checks += skipped
    whole_modes = [(", ".join(names), shortened(reason, LONGEST_REASON)) for reason, names in modes.items()]
    return by_reason(checks) + whole_modes


def fault_titles(report: Report) -> list[str]:
    """Return how each fault is announced: `fault 1 of 2: keys (bytes-differ)`."""
    count = len(report.faults)
    return [
        f"fault{f' {number} of {count}' if count > 1 else ''}: {fault.family} ({fault.id})"
        for number, fault in enumerate(report.faults, start=1)
    ]


def advice(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what would decide an undecided report: an option, and what it does."""
    options = report.environment.get("options") or {}
    if report.base is None:
        yield "--base DIR", "Name the unpruned checkpoint: with it, bytes and logits are compared with the base's."
    crashed = any(check.outcome == "error" for check in report.checks)
    if crashed:
        yield "--debug", "Show the whole traceback of each crash, for a bug report; the JSON has it, too."
    if any("--trust-remote-code" in reason_of(check) for check in report.checks if check.outcome == "skipped"):
        yield (
            "--trust-remote-code",
            "Let the checkpoint's own Python files run on this machine, once you have read them.",
        )
    if options.get("keyword"):
        yield "-k", f"Leave it out: {options['keyword']!r} chose some of the checks alone."
    if not crashed and any(check.outcome == "passed" for check in report.checks):
        yield "--allow-partial", "Accept what was checked as enough: the verdict is sound then, and the exit code 0."
