"""What a report tells people, in words: the terminal and the HTML page say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from .notebook import plan_text
from .report import EXIT_CODES, CheckRecord, Report
from .report_groups import groups
from .terminal import and_more, shortened

# Of a failure, enough to know it by; the fault tells it in full.
LONGEST_REASON = 200

UNDECIDED = (
    f"undecided (exit code {EXIT_CODES['undecided']}): nothing that was checked is wrong, but this was not checked"
)
NO_CAUSE = "no cause is known for what failed"
FINDINGS = "findings, which are no faults"

# What a verdict rests on, and the checks that look at it, as harness/judge.py counts them.
_PARTS: dict[str, Callable[[str], bool]] = {
    "keys": lambda name: name == "stored.keys",
    "bytes": lambda name: name in ("stored.base-bytes", "stored.manifest-bytes"),
    "logits": lambda name: ".logits.identity." in name,
}


def plan_and_source(report: Report) -> str:
    """Return the plan that was meant, and where it was read."""
    plan = plan_text(report.plan)
    source = report.environment.get("plan_from")
    return f"{plan} (from: {source})" if source else plan


def verdict_text(report: Report) -> str:
    """Return the verdict as a sentence: `sound: the pruned checkpoint is the model that was meant`."""
    unchecked = " and ".join(unchecked_parts(report))
    if report.verdict == "faulty":
        failed = sum(check.outcome == "failed" for check in report.checks)
        return f"faulty: {failed} of {len(report.checks)} checks failed"
    if report.verdict == "undecided":
        return f"undecided: {unchecked} could not be checked"
    sound = "the pruned checkpoint is the model that was meant"
    return f"sound: as far as it was checked, {sound}; {unchecked} were not checked" if unchecked else f"sound: {sound}"


def unchecked_parts(report: Report) -> list[str]:
    """Return what of keys, bytes and logits was not checked."""
    coverage = report.coverage
    checked = {"keys": coverage.keys, "bytes": coverage.bytes is not None, "logits": coverage.logits}
    return [part for part in _PARTS if not checked[part]]


def coverage_rows(report: Report) -> list[tuple[str, str]]:
    """Return what the verdict rests on: keys, bytes and logits, and what was seen of each."""
    compared = {"base": "each kept byte is the base's", "manifest": "each kept byte has the manifest's checksum"}
    right = {
        "keys": "stored are those, and only those, that the plan keeps",
        "bytes": compared.get(report.coverage.bytes or "", ""),
        "logits": "those of an independent reference, within the tolerance",
    }
    rows, unchecked = [], unchecked_parts(report)
    for part, looks in _PARTS.items():
        failed = any(check.outcome == "failed" and looks(check.name) for check in report.checks)
        rows.append((part, "not as they should be" if failed else "not checked" if part in unchecked else right[part]))
    return rows


def why_unchecked(report: Report, part: str) -> list[str]:
    """Return the reasons for which keys, bytes or logits were not checked."""
    looked = [check for check in report.checks if _PARTS[part](check.name)]
    return list(dict.fromkeys(map(reason_of, looked))) or ["no check of these was among those that were asked for"]


def failed_rows(report: Report) -> list[tuple[str, str]]:
    """Return the first failure of each group; what one fault leads to differs from check to check in numbers alone."""
    first: dict[str, list[CheckRecord]] = {}
    for group in groups(report):
        if failures := group.of("failed"):
            first.setdefault(reason_of(failures[0]), []).extend(failures)
    return [
        (and_more(checks[0].name, len(checks)), shortened(reason, LONGEST_REASON)) for reason, checks in first.items()
    ]


def skipped_rows(report: Report) -> list[tuple[str, str]]:
    """Return what was skipped, a row for each reason: checks, and then ways of loading of which nothing was checked."""
    modes: dict[str, list[str]] = {}
    checks: dict[str, list[CheckRecord]] = {}
    for group in groups(report):
        skipped = group.of("skipped")
        if group.is_skipped_mode:
            # What kept the model from being loaded is the reason of most; the others would have been skipped anyhow.
            reason = Counter(reason_of(check) for check in skipped).most_common(1)[0][0]
            modes.setdefault(reason, []).append(group.title)
        else:
            for check in skipped:
                checks.setdefault(reason_of(check), []).append(check)
    rows = [
        (and_more(skipped[0].name, len(skipped)), shortened(reason, LONGEST_REASON))
        for reason, skipped in checks.items()
    ]
    return rows + [(", ".join(names), shortened(reason, LONGEST_REASON)) for reason, names in modes.items()]


def reason_of(check: CheckRecord) -> str:
    """Return why a check failed or was skipped."""
    return check.reason or "no reason was given"


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
    if any("--trust-remote-code" in reason_of(check) for check in report.checks if check.outcome == "skipped"):
        yield (
            "--trust-remote-code",
            "Let the checkpoint's own Python files run on this machine, once you have read them.",
        )
    if options.get("keyword"):
        yield "-k", f"Leave it out: {options['keyword']!r} chose some of the checks alone."
    if any(check.outcome == "passed" for check in report.checks):
        yield "--allow-partial", "Accept what was checked as enough: the verdict is sound then, and the exit code 0."
