"""Records in a notebook: a few lines as text, a snippet of HTML in which every text is escaped, a pandas frame."""

import sys
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given

from harness.bench.record import Benchmark, ModeRecord
from harness.errors import CannotRun
from harness.report.notebook import NotebookRecord
from harness.report.report import Report
from tests.harness.bench.records import benchmark_of, benchmarks, seconds
from tests.harness.pages import bisection_of, matrix_of, search_of
from tests.harness.reports import FAULT, failed, passed, report_of, reports, skipped
from tests.harness.scan.test_record import scan_of

SCRIPT = '<script>alert("x")</script>'
REPORT = report_of(
    passed("stored.keys", tensors=31.0),
    failed("plain-float32.logits.random"),
    skipped("plain-float32.text"),
    faults=(FAULT,),
    findings=("the text is worse than the base's",),
)
BENCHMARK = benchmark_of(
    seconds("decode", (1.0, 1.1), (0.8, 0.9), setting={"batch": 1}),
    base=SCRIPT,
)
SCAN = scan_of((1.0, 1.5), (-0.1, 0.2), (None, 1.0))
SEARCH = search_of()
RECORDS: list[NotebookRecord] = [
    REPORT,
    BENCHMARK,
    SCAN,
    SEARCH,
    search_of(SCRIPT, SCRIPT),
    matrix_of(SCRIPT, REPORT),
    bisection_of(SCRIPT, report_of(), REPORT),
    replace(SCAN, metrics=("angular",), checkpoint=SCRIPT),
    scan_of(*[(float(index),) for index in range(100)]),
    report_of(checkpoint=SCRIPT, base=None, findings=(SCRIPT,)),
    report_of(plan={SCRIPT: [0]}),
    report_of(findings=("x" * 10**5,) * 10**3),
    benchmark_of(modes=(ModeRecord(SCRIPT, "no GPU"),), stored=()),
]


class Tags(HTMLParser):
    """Collects the tags with their attributes, and sees to it that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[Any]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        """Note a tag."""
        self.seen.append((tag, attrs))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the tag that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text += data


def test_a_report_at_the_prompt() -> None:
    """A report shows verdict, plan, counts, faults with remedies, and findings."""
    assert repr(REPORT).splitlines() == [
        "Report: faulty: 1 of 3 checks failed",
        "  checkpoint   /models/slim",
        "  base         /models/base",
        "  plan         self_attn 0,2, mlp 1",
        "  checks       1 passed, 1 failed, 1 skipped",
        "  fault: keys  the bytes of 2 of 31 kept tensors are not the base's",
        "  remedy       Prune the base again with prunecheck.",
        "  finding      the text is worse than the base's",
    ]


def test_a_benchmark_at_the_prompt() -> None:
    """A benchmark shows plan, what is gone of each cost beside the prediction, and what was not measured."""
    benchmark = benchmark_of(*BENCHMARK.modes[0].measurements, modes=(*BENCHMARK.modes, ModeRecord("gpu", "no GPU")))
    assert repr(benchmark).splitlines() == [
        "Benchmark: what pruning saves in 1 way of loading",
        "  checkpoint                      /models/slim",
        "  base                            /models/base",
        "  plan                            self_attn 0,2, mlp 1",
        "  gpu                             not measured: no GPU",
        "  on disk, weight files           gone 20.0%, predicted 20.0%, arrived 100%",
        "  plain-float32, decode, batch 1  gone 19.1%, predicted 20.0%, arrived 95% ± 5%",
    ]


def test_a_scan_at_the_prompt() -> None:
    """A scan shows what is least missed, noise marked as such, and what was scanned."""
    assert repr(SCAN).splitlines() == [
        "Scan: by nll, the least first",
        "  least missed     mlp 1: perplexity ~ x 1.05 (0.905 to 1.22)",
        r"  checkpoint       somewhere/\x1b[2J$x$",
        "  already pruned   nothing pruned",
        "  loaded as        plain-float32",
        "  text             2 windows of 128 tokens: prose",
        "  nothing removed  negative log likelihood 2 (2 to 2) nats per token",
        "  mlp 1            nll ~ 0.05 (-0.1 to 0.2)",
        "  mlp 0            nll 1.25 (1 to 1.5)",
        "  mlp 2            nll not finite",
    ]


def test_a_search_at_the_prompt() -> None:
    """A search shows what is left and what that costs, the plan, and what was asked for."""
    assert repr(SEARCH).splitlines()[:7] == [
        "Search: self_attn 5-6,8-10,12-14,16, mlp 7,11,15",
        "  bytes left       478,000,000 of 538,000,000 (88.8%)",
        "  perplexity       x 1.66 (1.54 to 1.78)",
        "  plan             self_attn 5-6,8-10,12-14,16, mlp 7,11,15 (12 sub-layers)",
        "  checkpoint       /models/base",
        "  already pruned   self_attn 3",
        "  asked for        --drop 12, greedy",
    ]
    assert repr(SEARCH).splitlines()[-1] == "  rise             0.504 (0.432 to 0.576) nats per token"


def is_obeyed(character: str) -> bool:
    """Whether a terminal or a browser may do something else with a character than show it."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def require_shown(record: NotebookRecord) -> None:
    """Check that a record is short at a prompt, and in HTML nothing but tables of text."""
    lines = repr(record).splitlines()
    assert len(lines) < 20
    assert max(map(len, lines)) <= 160
    assert not any(map(is_obeyed, "".join(lines)))
    tags = Tags()
    tags.feed(record._repr_html_())
    tags.close()
    assert {tag for tag, _ in tags.seen} <= {"div", "p", "strong", "table", "tr", "th", "td"}
    assert not any(attributes for _, attributes in tags.seen)
    assert tags.open == []
    assert not any(map(is_obeyed, tags.text.replace("\n", "")))


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_html_is_tables_of_text(record: NotebookRecord) -> None:
    """No text of a stranger's becomes a tag, nothing is fetched, no style leaks, and what is long is cut."""
    require_shown(record)
    assert len(record._repr_html_()) < 10**6


@pytest.mark.newest
@given(reports() | benchmarks)
def test_any_record_is_shown(record: Report | Benchmark) -> None:
    """Whatever a record holds, it is shown, in a few printable lines and in HTML."""
    require_shown(record)


@pytest.mark.newest
def test_a_frame_of_a_report() -> None:
    """A report becomes a frame of one row per check."""
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'prunecheck[notebook]'")
    frame = REPORT.to_frame()
    assert list(frame.columns) == ["name", "outcome", "reason", "seconds", "numbers", "traceback"]
    assert list(frame["name"]) == [check.name for check in REPORT.checks]
    assert list(frame["outcome"]) == ["passed", "failed", "skipped"]
    assert frame["seconds"].sum() == 0.5
    assert frame["numbers"][0] == {"tensors": 31.0}


@pytest.mark.newest
def test_a_frame_of_a_benchmark() -> None:
    """A benchmark becomes a frame of one row per cost and way of loading, its settings in columns of their own."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'prunecheck[notebook]'")
    frame = BENCHMARK.to_frame()
    assert list(frame["mode"]) == ["", "plain-float32"]
    assert list(frame["cost"]) == ["weight files", "decode"]
    assert pandas.isna(frame["batch"][0])
    assert frame["batch"][1] == 1
    assert frame["pruned"][1] == pytest.approx(0.85)
    assert frame["removed"][1] == pytest.approx(1 - (0.8 + 0.9 / 1.1) / 2)
    assert list(frame["predicted"]) == pytest.approx([0.2, 0.2])
    assert list(frame["runs"]) == [1, 2]


@pytest.mark.newest
def test_a_frame_of_a_scan() -> None:
    """A scan becomes a frame of one row per sub-layer and layer, each metric with the ends of its interval."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'prunecheck[notebook]'")
    frame = SCAN.to_frame()
    assert list(frame.columns) == ["sublayer", "layer", "nll", "nll low", "nll high"]
    assert list(frame["layer"]) == [0, 1, 2]
    assert frame.iloc[0].tolist() == ["mlp", 0, 1.25, 1.0, 1.5]
    assert pandas.isna(frame["nll"][2])


@pytest.mark.newest
def test_a_frame_of_a_search() -> None:
    """A search becomes a frame of one row per step."""
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'prunecheck[notebook]'")
    frame = SEARCH.to_frame()
    assert list(frame["step"]) == list(range(1, 13))
    assert list(frame["removed"][:2]) == ["self_attn 5", "self_attn 6"]
    assert frame["kept_bytes"][0] == 533_000_000
    assert frame["rise_mean"][0] == pytest.approx(0.0035)


@pytest.mark.newest
@given(reports() | benchmarks)
def test_any_record_becomes_a_frame(record: Report | Benchmark) -> None:
    """Whatever a record holds, its frame has its rows."""
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'prunecheck[notebook]'")
    assert len(record.to_frame()) == len(record.rows())


@pytest.mark.parametrize("record", [REPORT, BENCHMARK, SCAN, SEARCH], ids=["report", "benchmark", "scan", "search"])
def test_without_pandas(record: NotebookRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pandas is absent, a frame is refused in one line that names the remedy; all else works."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    message = r"^frames need pandas, which is not installed: pip install 'prunecheck\[notebook\]'$"
    with pytest.raises(CannotRun, match=message):
        record.to_frame()
    require_shown(record)
