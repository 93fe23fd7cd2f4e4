"""The documentation's plots show what was measured."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from docs_tests import performance_plot, report_picture, size_plot, text_judge_plot


def test_plot_of_the_judge_is_drawn_from_its_records(tmp_path: Path) -> None:
    """docs/text-judge.svg is what the records give."""
    text_judge_plot.write_plot(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == text_judge_plot.PLOT.read_bytes(), (
        "run `python docs_tests/text_judge_plot.py`"
    )


def test_plot_of_size_is_drawn_from_its_records(tmp_path: Path) -> None:
    """docs/size.svg is what the records give."""
    size_plot.write_plot(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == size_plot.PLOT.read_bytes(), "run `python docs_tests/size_plot.py`"


def test_plot_of_performance_is_drawn_from_its_records(tmp_path: Path) -> None:
    """docs/performance.svg is what the records give."""
    performance_plot.write_plot(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == performance_plot.PLOT.read_bytes(), (
        "run `python docs_tests/performance_plot.py`"
    )


def test_picture_of_a_report_is_what_check_shows() -> None:
    """docs/report.svg is the terminal's view of a report, and fetches nothing."""
    picture = report_picture.PICTURE.read_text(encoding="utf-8")
    assert picture == report_picture.draw(), "run `python docs_tests/report_picture.py`"
    assert "url(http" not in picture


def test_every_ratio_with_a_goal_is_in_the_plot() -> None:
    """No figure that misses its goal is left out of docs/performance.svg."""
    records = json.loads(performance_plot.RECORDS.read_text(encoding="utf-8"))
    ratios = [figure for section in records.values() for figure in section["ratios"] if figure["goal"]]
    assert sorted(row.ratio for row in performance_plot.rows(records)) == sorted(each["ratio"] for each in ratios)


def growing(records: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what takes the longer for a tensor or a shard the more there are.

    That is 15 % more for the most of them than for any other number: what the machine's own speed changes by meanwhile
    is of that size, by the bands of all rounds. And twice as long for any number as for another.
    """
    found = []
    for kind, first in (("tensors", 10_000), ("shards", 30)):
        beyond = [record for record in records[kind] if record["count"] >= first]
        for what in size_plot.OURS:
            each = [statistics.median(record[what]["seconds"]) / record["count"] for record in beyond]
            if each[-1] >= 1.15 * min(each) or max(each) >= 2 * min(each):
                found.append((kind, what))
    return found


def test_time_does_not_grow_with_the_number() -> None:
    """The time for a tensor or a shard is that of few of them, where there are a million or hundreds."""
    assert growing(json.loads(size_plot.RECORDS.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("kind", ["tensors", "shards"])
@pytest.mark.parametrize("what", size_plot.OURS)
def test_work_that_grows_is_found(kind: str, what: str) -> None:
    """Work that looks at all others for each is found, also where it is the hundredth part of all at first."""
    records = json.loads(size_plot.RECORDS.read_text(encoding="utf-8"))
    first = records[kind][2]
    least = statistics.median(first[what]["seconds"])
    for record in records[kind]:
        more = 0.01 * least * (record["count"] / first["count"]) ** 2
        record[what]["seconds"] = [seconds + more for seconds in record[what]["seconds"]]
    assert growing(records) == [(kind, what)]


@pytest.mark.parametrize("kind", ["tensors", "shards"])
@pytest.mark.parametrize("what", size_plot.OURS)
def test_work_that_some_numbers_take_is_found(kind: str, what: str) -> None:
    """Work that only a number in between takes is found."""
    records = json.loads(size_plot.RECORDS.read_text(encoding="utf-8"))
    record = records[kind][-2]
    record[what]["seconds"] = [2.1 * seconds for seconds in record[what]["seconds"]]
    assert growing(records) == [(kind, what)]


def test_controls_of_the_judge_have_the_verdict_they_should() -> None:
    """Not one control in the records is judged wrongly, and there are some of each kind in every precision."""
    records = json.loads(text_judge_plot.RECORDS.read_text(encoding="utf-8"))
    assert [record for record in records if record["verdict"] != record["wanted"]] == []
    kinds = {(record["precision"], record["wanted"]) for record in records}
    assert kinds == {(precision, word) for precision in text_judge_plot.PRECISIONS for word in text_judge_plot.STYLES}
