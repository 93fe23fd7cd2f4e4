"""What stands on the pages of --html, which are made from the record alone."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from harness.bench.page import benchmark_page
from harness.bench.record import Benchmark, ModeRecord
from harness.planning.scan.page import scan_page
from harness.planning.search.page import search_page
from harness.releases.page import bisection_page, matrix_page
from harness.report import pictures
from harness.report.divergence import divergence_picture, divergences
from harness.report.page import plan_strip
from harness.report.report import Report
from harness.report.report_page import report_page
from pruning import PrunePlan, SubLayer
from tests.harness.bench.records import benchmark_of, benchmarks, seconds, size
from tests.harness.pages import (
    HOSTILE,
    LAYERS,
    bisection_of,
    faulty_report,
    hostile_report,
    logits,
    matrix_of,
    scan_of,
    search_of,
    sound_report,
    undecided_report,
)
from tests.harness.reports import failed, passed, report_of, reports

pytestmark = pytest.mark.newest


class Page(HTMLParser):
    """What a page holds: its text, the names of its elements, every attribute, and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the name of an element, and its attributes."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    @property
    def addresses(self) -> set[str]:
        """Where it leads, and what it loads; of what stands in the page itself the kind alone."""
        values = [value or "" for name, value in self.attributes if name in ("src", "href", "srcset", "action")]
        return {value.partition(",")[0] for value in values}


OURS = {"#faults", "#plan", "#pictures", "#ways", "#checks", "data:", "data:image/svg+xml;base64"}


def is_harmless(page: Page) -> bool:
    """Whether a page runs nothing and asks for nothing."""
    handlers = [name for name, _ in page.attributes if name.startswith("on")]
    return not handlers and page.addresses <= OURS and not {"script", "iframe", "object", "form"} & set(page.tags)


def test_a_harmful_page_is_seen() -> None:
    """A script, a handler and an address elsewhere are each told from a page that has none."""
    assert is_harmless(Page('<p class="x">a</p><img src="data:image/svg+xml;base64,AA">'))
    for text in ("<script>1</script>", '<p onclick="x">', '<img src="http://a/b">', '<a href="javascript:x">'):
        assert not is_harmless(Page(text))


def test_order() -> None:
    """The verdict comes first, then faults with their remedies, the plan and the picture, and then every check."""
    text = Page(report_page(faulty_report())).text
    order = (
        "3 of 3 checks failed", "fault 1 of 2: keys (bytes-differ)", "Remedy: Prune the base again with prunecheck.",
        "50.0% of the elements of model.norm.weight differ", "fault 2 of 2: residual", "Pruned: mlp 16-17",
        "leaves the reference behind layers.16.self_attn, by 0.2; logits may differ by 1e-05",
        "largest difference, of allowed", "0.2 of 1e-05", "Every check with its numbers",
        "behind 60 sub-layers at most",
    )  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_sound() -> None:
    """A sound report says what its verdict rests on, what was skipped and why, and each number beside its limit."""
    text = Page(report_page(sound_report())).text
    for words in (
        "sound the pruned checkpoint is the model that was meant", "each kept byte is the base's", "None was found.",
        "bitsandbytes does not quantise what lies on the disk", "1.16e-06 of 2e-05", "tensors 310",
        "Findings, which are no faults", "plain-float32, disk-inside-float32: at most 1e-07 off the reference",
    ):  # fmt: skip
        assert words in text


def test_undecided() -> None:
    """An undecided report says what was not checked, why, and what to do; without logits there is no picture."""
    text = Page(report_page(undecided_report())).text
    assert "without --base there is nothing to compare with" in text
    assert "Name the unpruned checkpoint" in text
    assert "In no way of loading were logits compared" in text
    accepted = report_of(passed("stored.keys"), coverage=undecided_report().coverage.__class__(True, None, False, True))
    assert "--allow-partial" in Page(report_page(accepted)).text


def test_strangers_text_is_text() -> None:
    """Markup, quotes, template code and control characters in paths, names and reasons are shown, and do nothing."""
    source = report_page(hostile_report())
    page = Page(source)
    assert is_harmless(page)
    shown = (
        "<script>alert(1)</script>'\"><img src=http://127.0.0.1:9/x onerror=alert(2)>{{ 7 * 7 }}\\u202e\\x1b[2J\\r\\n"
    )
    assert shown in page.text
    assert page.text.count("alert(1)") >= 15
    assert "\x1b" not in source
    assert "\u202e" not in source
    hostile = benchmark_of(
        size(HOSTILE, 1000, 800), checkpoint=HOSTILE, base=HOSTILE,
        modes=(ModeRecord(HOSTILE, HOSTILE), ModeRecord(HOSTILE, None, (size(HOSTILE, 2, 1),), (HOSTILE,))),
    )  # fmt: skip
    pages = (
        benchmark_page(hostile), scan_page(scan_of(HOSTILE, HOSTILE)), search_page(search_of(HOSTILE, HOSTILE)),
        matrix_page(matrix_of(HOSTILE, hostile_report())),
        bisection_page(bisection_of(HOSTILE, sound_report(), hostile_report())),
    )  # fmt: skip
    for source in pages:
        assert is_harmless(page := Page(source))
        assert shown in page.text


@settings(max_examples=15)
@given(report=reports())
def test_every_report_has_a_page(report: Report) -> None:
    """Whatever a report holds, its page is made, harmless, and the same each time."""
    source = report_page(report)
    assert is_harmless(Page(source))
    source.encode()
    assert report_page(report) == source


@settings(max_examples=8, deadline=None)
@given(record=benchmarks)
def test_every_benchmark_has_a_page(record: Benchmark) -> None:
    """Whatever a benchmark holds, its page is made, and harmless, and its picture is drawn."""
    page = Page(benchmark_page(record))
    assert is_harmless(page)
    assert page.tags.count("img") == 1


def test_benchmark() -> None:
    """A benchmark's page says first what arrived of what the plan predicts, and has every cost, and what is missing."""
    record = benchmark_of(
        seconds("decode, a step", (1.0, 1.0), (0.9, 0.9), setting={"batch": 2}, tokens=2),
        modes=(
            ModeRecord("plain-float32", None, (seconds("load", (1.0, 1.0), (0.8, 0.8)),), ("It is so.",)),
            ModeRecord("gpu-bfloat16", "this machine has 0 GPU(s)"),
        ),
    )
    text = Page(benchmark_page(record)).text
    order = ("What arrived", "weight files 20.0% 20.0% 100%", "load 20.0% 20.0% 100% ± 0%", "gpu-bfloat16", "It is so.",
             "Every cost", "load 1.00 s 800.0 ms 20.0%")  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_scan() -> None:
    """A scan's page says first what is least missed, how its intervals are read, and has every sub-layer and layer."""
    page = Page(scan_page(scan_of()))
    order = ("2 windows of 128 tokens: prose", "What is least missed", "By nll, the least first", "~ marks those",
             "Each was removed alone.", "Least: ", "the nearest run", "Every sub-layer and layer")  # fmt: skip
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    names = [f"{sublayer} {layer}" for sublayer in ("self_attn", "mlp", "layer") for layer in range(LAYERS)]
    assert [name for name in names if f" {name} " not in page.text] == []
    assert "self_attn 5 not finite" in page.text
    assert page.tags.count("img") == 3


def test_search() -> None:
    """A search's page says first what is left, chosen and asked for, then shows all that is gone, and every step."""
    page = Page(search_page(search_of()))
    order = (
        "478,000,000 of 538,000,000", "self_attn 5-6,8-10,12-14,16, mlp 7,11,15 (12 sub-layers)", "--drop 12, greedy",
        "Pruned: self_attn 3,5-6,8-10,12-14,16, mlp 7,11,15", "What the bytes that go cost",
        "At the end 88.8% of the", "self_attn 5 99.1% 0.0035 (0.003 to 0.004)", "self_attn 16 88.8% ",
        "on other text it costs more",
    )  # fmt: skip
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    assert page.tags.count("img") == 1


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib the page is there, in words, and says what a picture needs."""
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    benchmark = benchmark_of(size("resident weights", 2, 1))
    for source in (
        report_page(faulty_report()),
        benchmark_page(benchmark),
        scan_page(scan_of()),
        search_page(search_of()),
    ):
        page = Page(source)
        assert "The picture needs matplotlib, which is not installed: pip install 'prunecheck[plot]'" in page.text
        assert "img" not in page.tags
    assert "leaves the reference behind layers.16.self_attn" in Page(report_page(faulty_report())).text


def test_a_picture_that_cannot_be_drawn() -> None:
    """What goes wrong while something is drawn is said in the picture's place, and the page is there."""
    picture = pictures.picture("a", ("b",), lambda: [][0])
    assert (picture.svg, picture.missing) == (
        None,
        "The picture could not be drawn, IndexError: list index out of range",
    )


def test_strip() -> None:
    """The strip has a cell for each layer; with their number unknown, up to the last pruned; with too many, none."""
    plan = PrunePlan(self_attn=(1,), mlp=(0, 1))
    cells = plan_strip(plan, 4)
    assert [(cell.index, cell.self_attn, cell.mlp) for cell in cells] == [
        (0, False, True), (1, True, True), (2, False, False), (3, False, False),
    ]  # fmt: skip
    assert [len(plan_strip(plan, layers)) for layers in (None, "4", 1, 10**9)] == [2, 2, 2, 0]
    label = re.search(r'class="strip" role="img" aria-label="([^"]*)"', report_page(faulty_report()))
    assert label is not None
    assert label[1] == f"{LAYERS} decoder layers; pruned: mlp 16-17 (from: pruning.json)"


@pytest.mark.parametrize(
    ("check", "first", "words"),
    [
        (logits("m", 1e-5), None, "at most 1e-07 off the reference behind any sub-layer"),
        (
            logits("m", 1e-5, leaves_at=3),
            (SubLayer(3, "self_attn"), 0.2),
            "leaves the reference behind layers.3.self_attn",
        ),
        (logits("m", 1e-5, leaves_at=3, by=float("inf")), (SubLayer(3, "self_attn"), float("inf")), "by inf"),
        (passed("m.x", allowed=1e-5, **{"layers.0.mlp": 0.0}), None, "bit for bit"),
        (
            failed("m.x", allowed=1e-5, **{"layers.10.mlp": 1.0, "layers.9.mlp": 1.0}),
            (SubLayer(9, "mlp"), 1.0),
            "layers.9.mlp",
        ),
    ],
)
def test_divergence(check: Callable[..., None], first: object, words: str) -> None:
    """Where a candidate first differs by more than logits may is told, in the order of the forward pass."""
    (divergence,) = divergences(report_of(check))
    assert divergence.mode == "m"
    assert divergence.first_beyond == first
    assert words in divergence.words


def test_there_is_no_divergence_without_its_numbers() -> None:
    """Other numbers, and layers without a limit, make no picture; equal records make equal pictures."""
    assert divergence_picture(report_of(passed("m.x", difference=1.0, allowed=2.0))) is None
    assert divergence_picture(report_of(passed("m.x", **{"layers.0.mlp": 0.0, "layers.x.mlp": 0.0}))) is None
    picture = divergence_picture(faulty_report())
    assert picture is not None
    assert picture == divergence_picture(faulty_report())
    assert picture.svg is not None
    assert "<dc:date>" not in picture.svg
