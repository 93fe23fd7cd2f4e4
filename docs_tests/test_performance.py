"""The figures that are shown are those that were measured."""

import json

from benchmarks.record import PAGE, RECORD, fill_in


def test_page_shows_what_was_measured() -> None:
    """docs/performance.md has the tables of the record; what is not in it is said to be not measured yet."""
    page = PAGE.read_text(encoding="utf-8")
    assert fill_in(page, json.loads(RECORD.read_text(encoding="utf-8"))) == page
    assert fill_in(page, {}).count("\nNot measured yet.\n") == page.count("<!-- figures: ") > 0
