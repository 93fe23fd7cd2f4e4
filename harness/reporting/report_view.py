"""A report for the terminal: the verdict, a row for each group of checks, and the reasons, each told once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pruning import PrunePlan

from .notebook import Summary, plan_text
from .report import EXIT_CODES, CheckRecord, FoundFault, Outcome, Report
from .report_groups import groups
from .terminal import and_more, pairs, plain, section, shortened, stdout_console

VERDICT_STYLES = {"sound": "bold green", "faulty": "bold red", "undecided": "bold yellow"}

# Of a failure, enough to know it by; the fault below the table tells it in full.
_LONGEST_REASON = 200

# What a verdict rests on, and the checks that look at it, as harness/judge.py counts them.
_PARTS: dict[str, Callable[[str], bool]] = {
    "keys": lambda name: name == "stored.keys",
    "bytes": lambda name: name in ("stored.base-bytes", "stored.manifest-bytes"),
    "logits": lambda name: ".logits.identity." in name,
}


def print_report(report: Report, *, console: Console | None = None) -> None:
    """Write a report for people to `console`, by default stdout."""
    sections = [_summary(report), _table(report), *_failed(report), *_skipped(report), *_faults(report)]
    sections += [*_findings(report), *_undecided(report)]
    (console or stdout_console()).print(Group(*sections))


def report_summary(report: Report) -> Summary:
    """Return what a notebook shows of a report: verdict, plan, counts, faults, findings; in HTML the groups, too."""
    counts = Counter(check.outcome for check in report.checks)
    facts = [
        ("checkpoint", report.checkpoint),
        ("base", report.base or "none was given"),
        ("plan", plan_text(report.plan)),
        ("checks", ", ".join(f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome))),
    ]
    for fault in report.faults:
        facts += [(f"fault: {fault.family}", fault.cause), ("remedy", fault.remedy)]
    facts += [("finding", finding) for finding in report.findings]
    rows = [
        [group.title, *(str(group.count(outcome)) for outcome in get_args(Outcome)), f"{group.seconds:.1f}"]
        for group in groups(report)
    ]
    return Summary(_verdict(report), facts, ("checks", *get_args(Outcome), "seconds"), rows)


def _summary(report: Report) -> RenderableType:
    plan = str(PrunePlan.from_dict(report.plan))
    if source := report.environment.get("plan_from"):
        plan += f" (from: {source})"
    return pairs(
        ("checkpoint:", report.checkpoint),
        ("base:", report.base or "none was given"),
        ("plan:", plan),
        ("verdict:", plain(_verdict(report), VERDICT_STYLES[report.verdict])),
    )


def _verdict(report: Report) -> str:
    unchecked = " and ".join(_unchecked_parts(report))
    if report.verdict == "faulty":
        failed = sum(check.outcome == "failed" for check in report.checks)
        return f"faulty: {failed} of {len(report.checks)} checks failed"
    if report.verdict == "undecided":
        return f"undecided: {unchecked} could not be checked"
    sound = "the pruned checkpoint is the model that was meant"
    return f"sound: as far as it was checked, {sound}; {unchecked} were not checked" if unchecked else f"sound: {sound}"


def _unchecked_parts(report: Report) -> list[str]:
    coverage = report.coverage
    checked = {"keys": coverage.keys, "bytes": coverage.bytes is not None, "logits": coverage.logits}
    return [part for part in _PARTS if not checked[part]]


def _table(report: Report) -> Table:
    table = Table()
    table.add_column("checks", overflow="fold")
    for title in ("passed", "failed", "skipped", "seconds"):
        table.add_column(title, justify="right", overflow="fold")
    for group in groups(report):
        if not group.is_skipped_mode:  # those are told of below, in one line for each reason
            failed = group.count("failed")
            table.add_row(
                plain(group.title),
                str(group.count("passed")),
                Text(str(failed), style="bold red" if failed else ""),
                str(group.count("skipped")),
                f"{group.seconds:.1f}",
            )
    return table


def _failed(report: Report) -> Iterator[RenderableType]:
    """Yield the first failure of each group; what one fault leads to differs from check to check in numbers alone."""
    first: dict[str, list[CheckRecord]] = {}
    for group in groups(report):
        if failures := group.of("failed"):
            first.setdefault(_reason(failures[0]), []).extend(failures)
    if first:
        rows = (
            (and_more(checks[0].name, len(checks)), shortened(reason, _LONGEST_REASON))
            for reason, checks in first.items()
        )
        yield section("failed", "bold red", pairs(*rows))


def _skipped(report: Report) -> Iterator[RenderableType]:
    modes: dict[str, list[str]] = {}
    checks: dict[str, list[CheckRecord]] = {}
    for group in groups(report):
        skipped = group.of("skipped")
        if group.is_skipped_mode:
            # What kept the model from being loaded is the reason of most; the others would have been skipped anyhow.
            reason = Counter(_reason(check) for check in skipped).most_common(1)[0][0]
            modes.setdefault(reason, []).append(group.title)
        else:
            for check in skipped:
                checks.setdefault(_reason(check), []).append(check)
    if modes or checks:
        rows = [
            (and_more(skipped[0].name, len(skipped)), shortened(reason, _LONGEST_REASON))
            for reason, skipped in checks.items()
        ]
        rows += [(", ".join(names), shortened(reason, _LONGEST_REASON)) for reason, names in modes.items()]
        yield section("skipped", "bold yellow", pairs(*rows))


def _reason(check: CheckRecord) -> str:
    return check.reason or "no reason was given"


def _faults(report: Report) -> Iterator[RenderableType]:
    for number, fault in enumerate(report.faults, start=1):
        of_how_many = f" {number} of {len(report.faults)}" if len(report.faults) > 1 else ""
        yield section(f"fault{of_how_many}: {fault.family} ({fault.id})", "bold red", fault_table(fault))
    if report.verdict == "faulty" and not report.faults:
        yield section("fault", "bold red", plain("no cause is known for what failed"))


def fault_table(fault: FoundFault) -> Table:
    """Return cause, evidence and remedy of a fault."""
    evidence = [("evidence:" if number == 0 else "", line) for number, line in enumerate(fault.evidence)]
    return pairs(("cause:", fault.cause), *evidence, ("remedy:", plain(fault.remedy, "bold")))


def _findings(report: Report) -> Iterator[RenderableType]:
    if report.findings:
        yield section("findings, which are no faults", "bold", pairs(*(("-", finding) for finding in report.findings)))


def _undecided(report: Report) -> Iterator[RenderableType]:
    if report.verdict != "undecided":
        return
    title = (
        f"undecided (exit code {EXIT_CODES['undecided']}): nothing that was checked is wrong, but this was not checked"
    )
    rows = ((f"{part}:", "; ".join(_why_unchecked(report, part))) for part in _unchecked_parts(report))
    yield section(title, "bold yellow", pairs(*rows))
    if advice := list(_advice(report)):
        yield section("what to do", "bold", pairs(*advice))


def _why_unchecked(report: Report, part: str) -> list[str]:
    looked = [check for check in report.checks if _PARTS[part](check.name)]
    return list(dict.fromkeys(map(_reason, looked))) or ["no check of these was among those that were asked for"]


def _advice(report: Report) -> Iterator[tuple[str, str]]:
    options = report.environment.get("options") or {}
    if report.base is None:
        yield "--base DIR", "Name the unpruned checkpoint: with it, bytes and logits are compared with the base's."
    if any("--trust-remote-code" in _reason(check) for check in report.checks if check.outcome == "skipped"):
        yield (
            "--trust-remote-code",
            "Let the checkpoint's own Python files run on this machine, once you have read them.",
        )
    if options.get("keyword"):
        yield "-k", f"Leave it out: {options['keyword']!r} chose some of the checks alone."
    if any(check.outcome == "passed" for check in report.checks):
        yield "--allow-partial", "Accept what was checked as enough: the verdict is sound then, and the exit code 0."
