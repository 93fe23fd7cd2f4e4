"""What the doctor found, for the terminal: ways of loading beside what they compute, what is wrong, and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table

from harness.report.terminal import pairs, plain, section, stdout_console

from .record import QUESTIONS, Answer, Checkup

_STYLES: Mapping[Answer, str] = {"right": "green", "wrong": "bold red", "undecided": "yellow"}
_MEANINGS: Mapping[Answer, str] = {
    "right": "this stack computes pruned models right",
    "wrong": "this stack computes pruned models wrong",
    "undecided": "whether this stack computes pruned models right could not be decided",
}


def print_checkup(checkup: Checkup, *, console: Console | None = None) -> None:
    """Write what the doctor found to `console`, by default stdout."""
    parts: list[RenderableType] = [plain(verdict_text(checkup), _STYLES[checkup.verdict]), _ways(checkup)]
    parts += [plain(f"not here: {', '.join(names)}: {reason}") for reason, names in _missing(checkup).items()]
    parts += _reasons(checkup)
    (console or stdout_console()).print(Group(*parts, section("versions", "bold", _environment(checkup))))


def verdict_text(checkup: Checkup) -> str:
    """Return the verdict as a sentence: `right: this stack computes pruned models right`."""
    return f"{checkup.verdict}: {_MEANINGS[checkup.verdict]}"


def print_versions(versions: Mapping[str, str | None], *, console: Console | None = None) -> None:
    """Write what is installed to `console`, by default stdout."""
    (console or stdout_console()).print(pairs(*_rows(versions)))


def _ways(checkup: Checkup) -> Table:
    table = Table()
    table.add_column("way of loading", overflow="fold")
    for question in QUESTIONS:
        table.add_column(question)
    for way in checkup.ways:
        if way.missing is None:
            table.add_row(plain(way.name), *(plain(answer, _STYLES[answer]) for answer in way.answers.values()))
    return table


def _missing(checkup: Checkup) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for way in checkup.ways:
        if way.missing is not None:
            names.setdefault(way.missing, []).append(way.name)
    return names


def _reasons(checkup: Checkup) -> Iterator[RenderableType]:
    report = checkup.report
    for fault in report.faults:
        rows = [("cause", fault.cause), *(("evidence", line) for line in fault.evidence), ("remedy", fault.remedy)]
        yield section(f"{fault.family}: {fault.id}", _STYLES["wrong"], pairs(*rows))
    here = [way.name for way in checkup.ways if way.missing is None]
    undecided = [
        (check.name, check.reason or check.outcome)
        for check in report.checks
        if check.outcome not in ("passed", "failed") and (check.name.partition(".")[0] in ("stored", *here))
    ]
    if undecided:
        yield section("undecided", _STYLES["undecided"], pairs(*undecided))
    if report.findings:
        yield section("findings", "bold", *(plain(f"* {finding}") for finding in report.findings))


def _environment(checkup: Checkup) -> Table:
    environment = checkup.report.environment
    return pairs(
        *_rows(environment["versions"]),
        ("python", environment["python"]),
        ("platform", environment["platform"]),
        ("devices", ", ".join(environment["devices"])),
        ("processors", environment["cpus"]),
        ("memory", f"{environment['memory'] / 1e9:.1f} GB"),
    )


def _rows(versions: Mapping[str, str | None]) -> Iterator[tuple[object, object]]:
    for name, version in versions.items():
        yield name, version or "not installed"
