"""Judgements under several sets of packages as an HTML page: the verdicts, the faults, every check."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.page import page

from .record import Bisection, Matrix
from .set_record import SetRecord, check_rows, faults, package_rows, unchecked_rows


def matrix_page(matrix: Matrix) -> str:
    """Return the page of a matrix."""
    return _page(
        f"Is {matrix.checkpoint} sound under each of these?", matrix.sets, matrix.facts(), matrix.verdict_rows()
    )  # fmt: skip


def bisection_page(bisection: Bisection) -> str:
    """Return the page of a search."""
    sets = tuple(bisection.judged.values())
    title = f"Which release of {bisection.package} changes what is said of {bisection.checkpoint}?"
    return _page(title, sets, bisection.facts(), bisection.release_rows(), bisection.answer())


def _page(
    title: str,
    sets: Sequence[SetRecord],
    rows: list[tuple[str, str]],
    verdicts: list[tuple[str, str]],
    found: str | None = None,
) -> str:
    judged = [record for record in sets if record.report is not None]
    environment = next((record.report.environment for record in judged if record.report is not None), {})
    return page(
        "releases.html",
        title=title,
        facts=rows,
        found=found,
        verdicts=verdicts,
        sets=[record.packages for record in judged],
        packages=package_rows(judged),
        checks=check_rows(judged),
        faults=list(faults(judged)),
        unchecked=unchecked_rows(judged),
        environment=environment,
    )
