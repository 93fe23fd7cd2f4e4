"""The command `doctor`: what it says of a sound stack, of planted faults, and of one that cannot be imported."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicLayer

import harness.doctor.run
from harness.doctor.record import Checkup, Way
from harness.doctor.run import examine
from harness.models.modes import loading_modes
from harness.report.outcomes import Coverage
from harness.report.report import Report
from harness.system.versions import PACKAGES
from pruning import prune_checkpoint
from tests.harness.command_line import run
from tests.harness.reports import report_of

pytestmark = pytest.mark.outermost

ONE_WAY: dict[str, Any] = {"device_map": ["plain"], "dtype": ["float32"], "quantisation": []}

# transformers 5.0.0 and 4.57.6 keep code in memory by the name of its directory: a process sees one version of it.
planted_in_code = pytest.mark.newest


def answers_of(checkup: Checkup) -> dict[str, str]:
    """Return the answers of the one way of loading that was asked for."""
    (way,) = checkup.ways
    return dict(way.answers)


def test_a_sound_stack_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a sound stack it ends with 0: right in each way of loading that is here, a reason for each other, versions."""
    threads = torch.get_num_threads()
    assert run(monkeypatch, "doctor", "--json", tmp_path / "doctor.json") == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "doctor.json").read_text(encoding="utf-8"))
    assert (record["schema"], record["verdict"]) == (1, "right")
    assert Report.from_dict(record["report"]).verdict == "sound"
    right = {"load": "right", "logits": "right", "cached steps": "right"}
    ways = {way["name"]: (way["missing"], way["answers"]) for way in record["ways"]}
    assert ways == {mode.name: (mode.missing, {} if mode.missing else right) for mode in loading_modes()}
    assert ways["plain-float32"][0] is None
    assert printed.startswith("right: this stack computes pruned models right\n")
    assert set(PACKAGES) == record["report"]["environment"]["versions"].keys()
    for name, (missing, _) in ways.items():
        assert name in printed
        assert missing is None or missing in " ".join(printed.split())
    assert record["report"]["environment"]["versions"]["torch"] in printed
    assert torch.get_num_threads() == threads


@planted_in_code
def test_a_core_that_records_no_tokens_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pruned attention that records nothing in the KV cache makes cached steps wrong, and the cause is told."""

    def prune(source: Path, destination: Path, *arguments: Any, **keywords: Any) -> None:
        prune_checkpoint(source, destination, *arguments, **keywords)
        code = destination / "hollow_modules.py"
        sound = code.read_text(encoding="utf-8")
        faulty = sound.replace("    kv_cache.update(", "    return\n    kv_cache.update(")
        assert faulty != sound
        code.write_text(faulty, encoding="utf-8")

    monkeypatch.setattr(harness.doctor.run, "prune_checkpoint", prune)
    checkup = examine(**ONE_WAY)
    assert answers_of(checkup) == {"load": "right", "logits": "right", "cached steps": "wrong"}
    assert checkup.verdict == "wrong"
    assert {fault.family for fault in checkup.report.faults} == {"cache"}
    monkeypatch.setattr(harness.doctor.run, "examine", lambda progress: checkup)
    assert run(monkeypatch, "doctor") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("wrong: ")
    for fault in checkup.report.faults:
        assert " ".join(fault.remedy.split()) in " ".join(printed.split())


def test_a_stock_cache_that_is_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the untouched stock model fails in a cache, that is told as upstream's, and nothing is said of ours."""
    with monkeypatch.context() as patched:
        patched.setattr(DynamicLayer, "get_seq_length", lambda layer, *arguments: 0)
        checkup = examine(**ONE_WAY)
    assert answers_of(checkup) == {"load": "right", "logits": "right", "cached steps": "undecided"}
    assert checkup.verdict == "undecided"
    assert any("computes wrong by itself" in finding for finding in checkup.report.findings)
    monkeypatch.setattr(harness.doctor.run, "examine", lambda progress: checkup)
    assert run(monkeypatch, "doctor") == 3
    printed = capsys.readouterr().out
    assert printed.startswith("undecided: ")
    assert "computes wrong by itself" in printed


@planted_in_code
def test_wrong_logits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core whose pruned mlp adds something makes the logits wrong."""

    def prune(source: Path, destination: Path, *arguments: Any, **keywords: Any) -> None:
        prune_checkpoint(source, destination, *arguments, **keywords)
        code = destination / "hollow_modules.py"
        sound = code.read_text(encoding="utf-8")
        faulty = sound.replace("hidden_states.new_zeros(())", "hidden_states.new_ones(())")
        assert faulty != sound
        code.write_text(faulty, encoding="utf-8")

    monkeypatch.setattr(harness.doctor.run, "prune_checkpoint", prune)
    checkup = examine(**ONE_WAY)
    assert answers_of(checkup)["logits"] == "wrong"
    assert checkup.verdict == "wrong"


def test_what_was_not_looked_at_is_not_right() -> None:
    """Without an answer for any way of loading, or behind a report that is not sound, nothing is said to be right."""
    partial = report_of(coverage=Coverage(keys=True, bytes=None, logits=True))
    way = Way("plain-float32", None, {"load": "right"})
    assert Checkup((way,), report_of()).verdict == "right"
    assert Checkup((way,), partial).verdict == "undecided"
    assert Checkup((), report_of()).verdict == "undecided"


def test_libraries_that_cannot_be_imported_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where torch or transformers cannot be imported it still prints what is installed, and ends with 2 and a line."""
    monkeypatch.setitem(sys.modules, "harness.doctor.run", None)
    assert run(monkeypatch, "doctor") == 2
    captured = capsys.readouterr()
    assert all(package in captured.out for package in PACKAGES)
    assert captured.err.startswith("prunecheck: the libraries cannot be imported: ")
    assert captured.err.count("\n") == 1
