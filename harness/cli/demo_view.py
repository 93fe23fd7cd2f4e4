"""The demo's report as a table for the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from harness.report.terminal import and_more, pairs, plain, section, stdout_console
from pruning import PrunePlan

from .demo import DemoReport

_STYLES = {"sound": "green", "faulty": "bold red", "error": "bold red", "skipped": "yellow", "undecided": "yellow"}
_NEXT = (
    "next, with a checkpoint of your own:",
    "  prunecheck plan SRC --drop 2",
    "  prunecheck prune SRC DST --plan plan/plan.json",
    "  prunecheck check DST --base SRC --html report.html",
)


def print_report(report: DemoReport) -> None:
    """Write the report to stdout."""
    verdict = plain(verdict_text(report), f"bold {_STYLES[report.verdict]}")
    stdout_console().print(Group(_summary(report), _table(report), *_answers(report), *map(plain, _NEXT), verdict))


def verdict_text(report: DemoReport) -> str:
    """Return the verdict as a sentence: `sound: the pruned checkpoint is the model that was meant`."""
    if report.verdict == "sound":
        return "sound: the pruned checkpoint is the model that was meant"
    outcome = "faulty" if report.verdict == "faulty" else "error"
    row = next(row for row in report.rows if row.outcome == outcome)
    if report.verdict == "faulty":
        return f"faulty: {row.mode}: {row.reason}"
    return f"undecided: {row.mode} crashed: {row.reason}"


def _summary(report: DemoReport) -> RenderableType:
    share = report.bytes_after / report.bytes_before
    before, after = _megabytes(report.bytes_before), _megabytes(report.bytes_after)
    return pairs(
        ("checkpoint:", report.base),
        ("pruned:", PrunePlan.from_dict(report.plan)),
        ("stored:", f"{before} before, {after} after ({share:.1%})"),
    )


def _table(report: DemoReport) -> Table:
    table = Table()
    table.add_column("way of loading", no_wrap=True)
    for title in ("load s", "MB", "logits off by", "allowed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in report.rows:
        table.add_row(
            row.mode,
            "" if row.seconds is None else f"{row.seconds:.1f}",
            "" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
            "" if row.difference is None else f"{row.difference:.2g}",
            "" if row.allowed is None else f"{row.allowed:.2g}",
            plain(row.outcome, _STYLES[row.outcome]),
        )
    return table


def _answers(report: DemoReport) -> Iterator[RenderableType]:
    """Yield why a row is not sound, and what each model answered, those that said the same in one row."""
    if wrong := [(row.mode, row.reason) for row in report.rows if row.reason]:
        yield section("what is wrong, or was not run", "bold yellow", pairs(*wrong))
    said: dict[str, list[str]] = {}
    for row in report.rows:
        if row.answer is not None:
            said.setdefault(row.answer, []).append(row.mode)
    rows = [(and_more(modes[0], len(modes)), answer) for answer, modes in said.items()]
    if report.base_answer is not None:
        rows.insert(0, ("the base, unpruned", report.base_answer))
    if rows:
        yield section(f"asked: {report.prompt}", "bold", pairs(*rows))
        yield plain("")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
