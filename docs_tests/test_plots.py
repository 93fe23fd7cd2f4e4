"""The documentation's plots show what was measured."""

import json
from pathlib import Path

from docs_tests import performance_plot, report_picture, text_judge_plot


def test_plot_of_the_judge_is_drawn_from_its_records(tmp_path: Path) -> None:
    """docs/text-judge.svg is what the records give."""
    text_judge_plot.write_plot(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == text_judge_plot.PLOT.read_bytes(), (
        "run `python docs_tests/text_judge_plot.py`"
    )


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


def test_controls_of_the_judge_have_the_verdict_they_should() -> None:
    """Not one control in the records is judged wrongly, and there are some of each kind in every precision."""
    records = json.loads(text_judge_plot.RECORDS.read_text(encoding="utf-8"))
    assert [record for record in records if record["verdict"] != record["wanted"]] == []
    kinds = {(record["precision"], record["wanted"]) for record in records}
    assert kinds == {(precision, word) for precision in text_judge_plot.PRECISIONS for word in text_judge_plot.STYLES}
