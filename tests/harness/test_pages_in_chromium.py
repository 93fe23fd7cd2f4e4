"""The pages of --html in a real browser: nothing is asked for, nothing is cut off, nothing complains."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.bench.page import benchmark_page
from harness.planning.scan.page import scan_page
from harness.planning.search.page import search_page
from harness.report.report_page import report_page
from tests.harness.bench.records import benchmark_of, seconds, size
from tests.harness.browser import (
    artifacts,
    chromium,
    cut_off,
    headings,
    images,
    opened,
    printed_pdf,
    requested,
    screenshot,
    told,
)
from tests.harness.pages import faulty_report, hostile_report, scan_of, search_of, sound_report, undecided_report

PHONE, DESK, PAPER = 390, 1200, 718  # pixels; the last is A4 less its margins, at 96 dots per inch

PAGES = {
    "sound": lambda: report_page(sound_report()),
    "faulty": lambda: report_page(faulty_report()),
    "undecided": lambda: report_page(undecided_report()),
    "hostile": lambda: report_page(hostile_report()),
    "scan": lambda: scan_page(scan_of()),
    "plan": lambda: search_page(search_of()),
    "benchmark": lambda: benchmark_page(
        benchmark_of(
            size("resident weights", 2_000_000, 1_600_000),
            seconds("time to first token", (2.0, 2.1), (1.8, 1.7), setting={"batch": 1}, tokens=200),
            seconds("decode, a step", (1.0, 1.0), (1.1, 0.7), setting={"batch": 1}, tokens=1),
        )
    ),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests of this module."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.mark.newest
@pytest.mark.parametrize("name", PAGES)
def test_page(browser: Any, name: str, tmp_path: Path) -> None:
    """On a phone, at a desk, in the dark and on paper a page is whole, silent, and asks the network for nothing."""
    path, folder = tmp_path / f"{name}.html", artifacts(tmp_path)
    path.write_text(PAGES[name](), encoding="utf-8")
    for width, dark in ((PHONE, False), (DESK, False), (DESK, True)):
        opened(browser, path, width, dark=dark)
        assert cut_off(browser) == []
        screenshot(browser, folder / f"{name}-{width}{'-dark' if dark else ''}.png")
    assert all(alt and width > 0 for alt, width in images(browser))
    levels = headings(browser)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    opened(browser, path, PAPER, media="print")
    assert cut_off(browser, also_in_boxes=True) == []
    pdf = printed_pdf(browser)
    (folder / f"{name}.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) >= 2
    assert b"/ToUnicode" in pdf  # there is text on them
    assert told(browser) == []
    assert requested(browser) == []


@pytest.mark.newest
def test_what_is_wrong_with_a_page_is_seen(browser: Any, tmp_path: Path) -> None:
    """A page that asks for something, complains, and is too wide in three ways is found out in all of them."""
    wide = '<div style="width: 5000px">wide</div>'
    path = tmp_path / "wrong.html"
    path.write_text(
        '<!DOCTYPE html><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<main>{wide}<div class="box" style="overflow-x: auto">{wide}</div></main>'
        '<img alt="" src="http://127.0.0.1:9/picture.png"><script>console.error("wrong")</script>'
    )
    opened(browser, path, PHONE)
    assert [line.partition(":")[0] for line in cut_off(browser)] == ["HTML", "DIV"]
    assert [line.partition(":")[0] for line in cut_off(browser, also_in_boxes=True)] == ["HTML", "DIV", "DIV"]
    assert images(browser) == [("", 0)]
    assert any("wrong" in line for line in told(browser))
    assert requested(browser) == ["http://127.0.0.1:9/picture.png"]
