"""The demo's report as a table for the terminal."""

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pruning import PrunePlan

from .demo import DemoReport

# Wide enough that a table written to a file or a pipe keeps one line a row.
_WIDTH_WITHOUT_TERMINAL = 160
_STYLES = {"sound": "green", "faulty": "bold red", "error": "bold red", "skipped": "yellow"}


def print_report(report: DemoReport) -> None:
    """Write the report to stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
    console.print(Group(_summary(report), _table(report), _verdict(report)))


def _summary(report: DemoReport) -> Text:
    share = report.bytes_after / report.bytes_before
    return Text(
        f"{report.base}\npruned: {PrunePlan.from_dict(report.plan)}\n"
        f"stored: {_megabytes(report.bytes_before)} before, {_megabytes(report.bytes_after)} after ({share:.1%})\n"
        f"asked:  {report.prompt}"
    )


def _table(report: DemoReport) -> Table:
    table = Table()
    table.add_column("way of loading", no_wrap=True)
    for title in ("load s", "resident MB", "logit diff.", "allowed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("answer, or what is wrong")
    for row in report.rows:
        table.add_row(
            row.mode,
            "" if row.seconds is None else f"{row.seconds:.1f}",
            "" if row.bytes is None else f"{row.bytes / 1e6:.1f}",
            "" if row.difference is None else f"{row.difference:.2g}",
            "" if row.allowed is None else f"{row.allowed:.2g}",
            Text(row.outcome, style=_STYLES[row.outcome]),
            Text(row.reason or row.answer or "every stored tensor is the base's, byte for byte"),
        )
    return table


def _verdict(report: DemoReport) -> Text:
    if report.verdict == "sound":
        return Text("sound: the pruned checkpoint is the model that was meant", style="bold green")
    outcome = "faulty" if report.verdict == "faulty" else "error"
    row = next(row for row in report.rows if row.outcome == outcome)
    if report.verdict == "faulty":
        return Text(f"faulty: {row.mode}: {row.reason}", style="bold red")
    return Text(f"undecided: {row.mode} crashed: {row.reason}", style="bold yellow")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
