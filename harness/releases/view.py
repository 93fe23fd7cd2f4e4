"""Judgements under several sets of packages for the terminal, and what their pages say, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table

from harness.report.comparison_view import what_changed
from harness.report.groups import group_and_property
from harness.report.notebook import Summary
from harness.report.report import FoundFault
from harness.report.report_view import VERDICT_STYLES, fault_table
from harness.report.terminal import and_more, pairs, plain, section, stdout_console
from harness.report.words import open_rows, verdict_text

from .record import COULD_NOT_RUN, Bisection, Matrix, SetRecord

_STYLES = {**VERDICT_STYLES, COULD_NOT_RUN: "bold magenta", "failed": "bold red", "error": "bold magenta"}
_NOT_RUN = "-"


@dataclass(frozen=True)
class Row:
    """Checks that came to the same under each set, and what that is: one word a set."""

    checks: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first check, and how many more there are."""
        return and_more(self.checks[0], len(self.checks))


def print_matrix(matrix: Matrix, *, console: Console | None = None) -> None:
    """Write a matrix for people to `console`, by default stdout."""
    verdicts = [(record.packages, plain(came_to(record), _STYLES[record.verdict])) for record in matrix.sets]
    sections: list[RenderableType] = [pairs(*facts(matrix)), section("verdicts", "bold", pairs(*verdicts))]
    if matrix.judged:
        sections.append(section("checks", "bold", _table(matrix.judged)))
    for packages, fault in faults(matrix.sets):
        sections.append(section(f"fault under {packages}: {fault.family} ({fault.id})", "bold red", fault_table(fault)))
    if unchecked := unchecked_rows(matrix.sets):
        sections.append(section("what was not checked", "bold yellow", pairs(*unchecked)))
    (console or stdout_console()).print(Group(*sections))


def print_bisection(bisection: Bisection, *, console: Console | None = None) -> None:
    """Write what a search found for people to `console`, by default stdout."""
    sections: list[RenderableType] = [pairs(*bisection_facts(bisection))]
    sections.append(section("releases that were judged", "bold", pairs(*release_rows(bisection))))
    sections += what_changed(bisection.comparison)
    sections.append(section(answer(bisection), "bold"))
    (console or stdout_console()).print(Group(*sections))


def facts(matrix: Matrix) -> list[tuple[str, str]]:
    """Return what was judged."""
    return [("checkpoint", matrix.checkpoint), ("base", matrix.base or "none was given")]


def bisection_facts(bisection: Bisection) -> list[tuple[str, str]]:
    """Return what was judged, over which releases, and what was compared."""
    return [
        ("checkpoint", bisection.checkpoint),
        ("base", bisection.base or "none was given"),
        ("package", bisection.package),
        ("releases", f"{len(bisection.releases)}, from {bisection.releases[0]} to {bisection.releases[-1]}"),
        ("compared", "verdicts" if bisection.keyword is None else f"outcomes of the checks of -k {bisection.keyword}"),
    ]


def answer(bisection: Bisection) -> str:
    """Return the release at which it changes, in a sentence."""
    package, last, changed = bisection.package, bisection.last, bisection.changed
    what = "the verdict" if bisection.keyword is None else "what these checks find"
    if not bisection.between:
        return f"{what} changes at {package} {changed}; {last} is the last release before the change"
    names = ", ".join(bisection.between)
    return f"{what} changes after {package} {last} and no later than {changed}; {names} could not be judged"


def release_rows(bisection: Bisection) -> list[tuple[str, str]]:
    """Return each release that was looked at, with what it came to."""
    return [(release, came_to(record)) for release, record in bisection.judged.items()]


def verdict_rows(sets: Sequence[SetRecord]) -> list[tuple[str, str]]:
    """Return each set with what it came to."""
    return [(record.packages, came_to(record)) for record in sets]


def came_to(record: SetRecord) -> str:
    """Return the verdict under a set as a sentence, or why there is none."""
    return f"{COULD_NOT_RUN}: {record.reason}" if record.report is None else verdict_text(record.report)


def check_rows(sets: Sequence[SetRecord]) -> list[Row]:
    """Return a row for all checks of one group that came to the same under each set."""
    outcomes = [record.outcomes() for record in sets]
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in dict.fromkeys(name for each in outcomes for name in each):
        row = tuple(each.get(name, _NOT_RUN) for each in outcomes)
        alike.setdefault((group_and_property(name)[0], row), []).append(name)
    return [Row(tuple(names), row) for (_, row), names in alike.items()]


def package_rows(sets: Sequence[SetRecord]) -> list[tuple[str, ...]]:
    """Return a row for each package that a set names or installs: the version under each."""
    names = dict.fromkeys(name for record in sets for name in record.versions)
    return [(name, *(_version(record, name) for record in sets)) for name in names]


def _version(record: SetRecord, name: str) -> str:
    """Return the version of a package under a set; of one that only another set names, as far as the report has it."""
    elsewhere = {} if record.report is None else record.report.environment.get("versions") or {}
    return record.versions.get(name) or elsewhere.get(name) or _NOT_RUN


def faults(sets: Sequence[SetRecord]) -> Iterator[tuple[str, FoundFault]]:
    """Yield each fault once, with the sets under which it is found; family and id say whether it is the same."""
    found: dict[tuple[str, str], tuple[FoundFault, list[str]]] = {}
    for record in sets:
        for fault in () if record.report is None else record.report.faults:
            found.setdefault((fault.family, fault.id), (fault, []))[1].append(record.packages)
    for fault, packages in found.values():
        yield " and ".join(packages), fault


def unchecked_rows(sets: Sequence[SetRecord]) -> list[tuple[str, str]]:
    """Return, for each set under which the verdict is undecided, what keeps it open, crashes too, and why."""
    return [
        (f"{part} under {record.packages}", why)
        for record in sets
        if record.report is not None and record.verdict == "undecided"
        for part, why in open_rows(record.report)
    ]


def matrix_summary(matrix: Matrix) -> Summary:
    """Return what a notebook shows of a matrix: the verdict under each set; in HTML the checks, too."""
    columns = ("check", *(record.packages for record in matrix.judged))
    rows = [(row.title, *row.outcomes) for row in check_rows(matrix.judged)]
    title = ", ".join(f"{record.packages}: {record.verdict}" for record in matrix.sets)
    return Summary(title, [*facts(matrix), *verdict_rows(matrix.sets)], columns, rows)


def bisection_summary(bisection: Bisection) -> Summary:
    """Return what a notebook shows of a search: the answer, and each release that was judged."""
    return Summary(answer(bisection), [*bisection_facts(bisection), *release_rows(bisection)])


def _table(sets: Sequence[SetRecord]) -> Table:
    table = Table()
    table.add_column("", overflow="fold")
    for record in sets:
        table.add_column(plain(record.packages), overflow="fold")
    for row in package_rows(sets):
        table.add_row(*map(plain, row))
    table.add_section()
    for check in check_rows(sets):
        table.add_row(plain(check.title), *(plain(word, _STYLES.get(word, "")) for word in check.outcomes))
    return table
