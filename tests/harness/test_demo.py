"""The demo: its verdict, on the real checkpoint and on planted faults."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cli import demo
from harness.cli.demo_view import print_report
from harness.errors import CannotRun
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan
from pruning.remote.hollow_modules import SkippedSublayer, become
from tests.harness.command_line import run

REAL = pytest.mark.real_checkpoint


def report_of(*rows: demo.DemoRow) -> demo.DemoReport:
    """A report with the given rows."""
    return demo.DemoReport("base", {"self_attn": [1], "mlp": []}, 100, 90, "Why?", rows)


def steps(_: str) -> None:
    """Show no progress."""


def test_bundled_plan() -> None:
    """The bundled plan prunes attentions, MLPs and one whole layer."""
    plan = demo.bundled_plan()
    assert len(plan.self_attn) > 1
    assert len(plan.mlp) > 1
    assert len(plan.whole_layers) == 1


def test_logits_beyond_the_tolerance_are_faulty() -> None:
    """A difference within the tolerance passes; one beyond it, infinity and NaN do not."""
    assert demo._reason(0.1, 0.1) is None
    for difference in (0.11, float("inf"), float("nan")):
        assert demo._reason(difference, 0.1) is not None


def test_cached_steps_are_compared_while_they_continue_the_same_tokens() -> None:
    """The steps up to the first different token are compared, that one included, and none behind it."""
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    answer = demo._Answer(torch.tensor([[7, 1, 0, 1]]), logits)
    assert demo._cached_difference(answer, answer) == 0
    other = demo._Answer(torch.tensor([[7, 1, 1, 0]]), logits + torch.tensor([[0.0], [0.5], [9.0]]))
    assert demo._cached_difference(answer, other) == 0.5
    shorter = demo._Answer(torch.tensor([[7, 1]]), logits[:1])
    assert demo._cached_difference(answer, shorter) == 0
    assert demo._cached_difference(answer, demo._Answer(answer.tokens, logits + float("nan"))).isnan()


def test_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    """One faulty row makes the verdict faulty, with its reason, or else one that crashed undecided."""
    sound, skipped = demo.DemoRow("plain", "sound"), demo.DemoRow("8-bit", "skipped", "bitsandbytes is not installed")
    faulty = demo.DemoRow("auto", "faulty", "logits differ")
    assert report_of(sound, skipped).verdict == "sound"
    print_report(report_of(sound, faulty, skipped))
    assert capsys.readouterr().out.splitlines()[-1] == "faulty: auto: logits differ"
    crashed = demo.DemoRow("auto", "error", "KeyError: 'x'", traceback="Traceback")
    assert report_of(crashed, faulty).verdict == "faulty"
    assert report_of(sound, crashed, skipped).verdict == "undecided"
    print_report(report_of(sound, crashed, skipped))
    assert capsys.readouterr().out.splitlines()[-1] == "undecided: auto crashed: KeyError: 'x'"


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The base's answer stands beside the others, alike answers in one row, and what to type next above the verdict."""
    rows = [demo.DemoRow(mode, "sound", answer="Lyon.") for mode in ("plain-float32", "auto-float32")]
    report = demo.DemoReport("base", {"self_attn": [1], "mlp": []}, 100, 90, "Where?", tuple(rows), "Paris.")
    print_report(report)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    asked = lines.index(["asked:", "Where?"])
    assert lines[asked + 1] == ["the", "base,", "unpruned", "Paris."]
    assert lines[asked + 2] == ["plain-float32", "and", "1", "more", "Lyon."]
    assert ["prunecheck", "prune", "SRC", "DST", "--plan", "plan/plan.json"] in lines[asked:]


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prunecheck demo` ends with 0 when sound, 1 faulty, 2 it could not run, 3 undecided; JSON keeps the record."""
    rows = (
        (demo.DemoRow("plain", "sound"), 0),
        (demo.DemoRow("plain", "faulty", "off"), 1),
        (demo.DemoRow("plain", "error", "KeyError: 'x'", traceback="Traceback"), 3),
    )
    for row, code in rows:
        monkeypatch.setattr(demo, "run_demo", lambda plan, step, row=row: report_of(row))
        assert run(monkeypatch, "demo", "--json", tmp_path / "report.json") == code
        record = json.loads((tmp_path / "report.json").read_text())
        assert (record["schema"], record["verdict"]) == (2, report_of(row).verdict)

    def no_network(plan: PrunePlan, step: Any) -> None:
        raise CannotRun("no network")

    monkeypatch.setattr(demo, "run_demo", no_network)
    capsys.readouterr()
    assert run(monkeypatch, "demo") == 2
    assert capsys.readouterr().err == "prunecheck: no network\n"


def test_way_of_loading_that_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A crash in one way of loading is a row of its own, which makes the demo undecided, and costs no other row."""
    base = write_tiny_checkpoint(TinySpec(layers=4), tmp_path / "base")

    def row(mode: Any, *_: Any) -> demo.DemoRow:
        if mode.name == "plain-bfloat16":
            raise KeyError("planted")
        return demo.DemoRow(mode.name, "sound")

    monkeypatch.setattr(demo, "real_checkpoint_path", lambda **_: base)
    monkeypatch.setattr(demo, "_mode_row", row)
    monkeypatch.setattr(demo, "_chat_tokens", lambda *_: None)
    monkeypatch.setattr(demo, "_base_answer", lambda *_: "yes")
    monkeypatch.setattr(demo.AutoTokenizer, "from_pretrained", lambda *_: None)
    report = demo.run_demo(PrunePlan(self_attn=(1,)), steps)
    assert report.verdict == "undecided"
    assert [row.mode for row in report.rows if row.outcome == "error"] == ["plain-bfloat16"]
    (crashed,) = (row for row in report.rows if row.outcome == "error")
    assert crashed.reason == "KeyError: 'planted'"
    assert (crashed.traceback or "").startswith("Traceback")
    assert len(report.rows) == 1 + len(demo.LOADING_MODES)
    assert report.to_dict()["base_answer"] == "yes"


def test_json_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be written ends with 2 and one line: before the work where that can be seen, else after."""
    ran = []
    sound = report_of(demo.DemoRow("plain", "sound"))
    monkeypatch.setattr(demo, "run_demo", lambda plan, step: ran.append(plan) or sound)
    nowhere = tmp_path / "nowhere" / "report.json"
    assert run(monkeypatch, "demo", "--json", nowhere) == 2
    message = f"prunecheck: {nowhere} cannot be written: {nowhere.parent} is no directory\n"
    assert (capsys.readouterr(), ran) == (("", message), [])
    (tmp_path / "loop").symlink_to("loop")
    assert run(monkeypatch, "demo", "--json", tmp_path / "loop") == 2
    captured = capsys.readouterr()
    assert captured.err == f"prunecheck: {tmp_path}/loop cannot be written: Too many levels of symbolic links\n"
    assert captured.out.splitlines()[-1] == "sound: the pruned checkpoint is the model that was meant"


@REAL
def test_planted_fault_on_the_real_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned model that skips one sub-layer too many is faulty; the same demo without that is sound."""
    monkeypatch.setattr(demo, "LOADING_MODES", demo.LOADING_MODES[:1])
    monkeypatch.setattr(demo, "MAX_NEW_TOKENS", 4)
    assert demo.run_demo(demo.bundled_plan(), steps).verdict == "sound"
    load_pruned = demo.load_pruned

    def skipping_one_more(*args: Any, **kwargs: Any) -> Any:
        model = load_pruned(*args, **kwargs)
        become(next(layer for layer in model.model.layers if not layer.prune_mlp).mlp, SkippedSublayer)
        return model

    monkeypatch.setattr(demo, "load_pruned", skipping_one_more)
    report = demo.run_demo(demo.bundled_plan(), steps)
    assert report.verdict == "faulty"
    assert [row.mode for row in report.rows if row.outcome == "faulty"] == ["plain-float32"]


@REAL
def test_load_error_is_a_faulty_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned checkpoint that does not load strictly is faulty, with the loader's reason."""

    def with_a_lost_plan(source: Any, destination: Path, plan: PrunePlan) -> Any:
        result = prune_checkpoint(source, destination, plan)
        config = json.loads((destination / "config.json").read_text())
        del config["per_layer_config"]
        (destination / "config.json").write_text(json.dumps(config))
        return result

    prune_checkpoint = demo.prune_checkpoint
    monkeypatch.setattr(demo, "prune_checkpoint", with_a_lost_plan)
    monkeypatch.setattr(demo, "LOADING_MODES", demo.LOADING_MODES[:1])
    report = demo.run_demo(demo.bundled_plan(), steps)
    (row,) = [row for row in report.rows if row.outcome == "faulty"]
    assert row.reason is not None
    assert "pruning.json says" in row.reason
