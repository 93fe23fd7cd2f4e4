"""A scan as an HTML page: what is least missed, how sure that is, the heat maps, and every sub-layer."""

from __future__ import annotations

from harness.report.page import made_with, page, plan_strip
from pruning import PrunePlan

from .plot import metric_pictures
from .record import Scan, row
from .view import ACROSS, NEAREST, column, legend, nearest_rows

_FIRST = 10


def scan_page(scan: Scan) -> str:
    """Return the page of a scan."""
    metrics = scan.ranked_metrics
    ranked = [row(each, metrics) for each in scan.ranked(metrics[0])] if metrics else []
    return page(
        "scan.html",
        scan=scan,
        facts=scan.facts(),
        ranked_by=metrics[0] if metrics else None,
        columns=["", *map(column, metrics)],
        first=ranked[:_FIRST],
        ranked=ranked,
        legend=legend(scan),
        across=ACROSS,
        nearest=[NEAREST, *nearest_rows(scan)] if scan.distances else [],
        plan=str(PrunePlan.from_dict(scan.plan)),
        strip=plan_strip(PrunePlan.from_dict(scan.plan), scan.layers),
        pictures=metric_pictures(scan),
        environment=scan.environment,
        made_with=made_with(scan.environment),
    )
