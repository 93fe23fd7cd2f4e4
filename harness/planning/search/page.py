"""A search as an HTML page: the plan and what it costs, the trade-off, every step."""

from __future__ import annotations

from harness.report.page import made_with, page, plan_strip
from pruning import PrunePlan

from .plot import trade_off_picture
from .record import COLUMNS, Search
from .view import NOTE


def search_page(search: Search) -> str:
    """Return the page of a search."""
    gone = search.plan | PrunePlan.from_dict(search.pruned)
    return page(
        "search.html",
        search=search,
        facts=search.facts(),
        plan=str(gone),
        strip=plan_strip(gone, search.layers),
        pictures=[trade_off_picture(search)],
        steps=[row[1:] for row in (COLUMNS, *search.step_rows())],  # without numbers it fits on a phone
        note=NOTE,
        environment=search.environment,
        made_with=made_with(search.environment),
    )
