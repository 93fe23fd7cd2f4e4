"""The command `bench`, and `compare` of what it wrote: exit codes, files, one-line errors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.bench.page import benchmark_page
from harness.bench.record import Benchmark
from harness.bench.run import benchmark_checkpoint
from harness.faults import foreign_checkpoint
from harness.models.session import Session
from pruning import PrunePlan
from tests.harness.bench.records import benchmark_of, size
from tests.harness.command_line import run
from tests.harness.reports import passed, report_of

pytestmark = pytest.mark.newest

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pair(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a checkpoint pruned from it."""
    return tiny_checkpoints()


def test_bench(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The table is on stdout, nothing on stderr, the record in the JSON file; what cannot run here is told why not."""
    base, pruned = pair
    files = ("--json", tmp_path / "bench.json", "--plot", tmp_path / "bench.svg", "--html", tmp_path / "bench.html")
    workload = ("--prompt-tokens", "4,8", "--new-tokens", "2", "--batch", "1,3", "--repeats", "2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    modes = ("--device-map", "plain,gpu", "--dtype", "float32")
    assert run(monkeypatch, "bench", pruned, "--base", base, *modes, *workload, *files) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "gpu-float32:  this machine has 0 GPU(s), and it needs 1" in captured.out
    assert "self_attn 1-2, mlp 1" in captured.out
    assert (tmp_path / "bench.svg").read_text(encoding="utf-8").startswith("<?xml")
    benchmark = Benchmark.from_file(tmp_path / "bench.json")
    assert (tmp_path / "bench.html").read_text(encoding="utf-8") == benchmark_page(benchmark)
    plain, gpu = benchmark.modes
    assert (plain.name, plain.skipped, gpu.measurements) == ("plain-float32", None, ())
    labels = {measurement.label: measurement for measurement in plain.measurements}
    assert {"load (warm)", "load and first pass (warm)", "peak memory, load and first pass"} <= labels.keys()
    assert {f"decode, a step, batch {batch}, prompt tokens {tokens}" for batch in (1, 3) for tokens in (4, 8)} <= set(
        labels
    )
    timed = [measurement for measurement in plain.measurements if measurement.unit == "s"]
    assert all(len(each.base) == len(each.pruned) == 2 for each in timed)
    assert all(seconds > 0 for each in timed for seconds in (*each.base, *each.pruned))
    is_cold = "load (cold)" in labels
    assert is_cold != any(note.startswith("Loads with a cold file cache are not measured: ") for note in plain.notes)
    assert len(benchmark.clock) == 4 * 3 * 2
    assert benchmark.environment["options"]["prompt_tokens"] == [4, 8]
    assert run(monkeypatch, "compare", tmp_path / "bench.json", tmp_path / "bench.json") == 0
    assert "no regression" in capfd.readouterr().out


def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare` tells benchmarks by their content: 1 where gain was lost, 2 where the other is of another kind."""
    for name, record in (
        ("good", benchmark_of()),
        ("bad", benchmark_of(stored=(size("weight files", 1000, 1000),))),
        ("report", report_of(passed("stored.keys"))),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(record.to_dict()), encoding="utf-8")
    good, bad, report = (tmp_path / f"{name}.json" for name in ("good", "bad", "report"))
    assert run(monkeypatch, "compare", good, bad) == 1
    assert run(monkeypatch, "compare", bad, good) == 0
    assert capsys.readouterr().err == ""
    for both in ((good, report), (report, good)):
        assert run(monkeypatch, "compare", *both) == 2
        assert capsys.readouterr().err.startswith(f"prunecheck: {report} is not a benchmark of prunecheck: ")


def test_nothing_could_be_measured(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no way of loading can be measured, the record tells why, and the exit code is 2."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    command = ("bench", pair[1], "--base", pair[0], "--device-map", "gpu", "--json", tmp_path / "bench.json")
    assert run(monkeypatch, *command) == 2
    assert capsys.readouterr().err == "prunecheck: no way of loading could be measured; the reasons are above\n"
    assert Benchmark.from_file(tmp_path / "bench.json").is_empty


def test_stored_dtype(tiny_checkpoints: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a choice, models are loaded plainly, in the dtype that is stored; a quantisation is a choice."""
    from harness.tiny import TinySpec

    monkeypatch.setattr("harness.bench.run.too_large", lambda *_: "it is")
    base, pruned = tiny_checkpoints(TinySpec(dtype="bfloat16"))
    for options, names in (
        ({}, ["plain-bfloat16"]),
        ({"quantisation": ("8bit",)}, ["plain-8bit"]),
        ({"quantisation": ("4bit",), "dtype": ("float32",)}, ["plain-float32", "plain-4bit"]),
    ):
        benchmark = benchmark_checkpoint(pruned, base=base, **options)  # type: ignore[arg-type]  # a dict of several types
        assert [(mode.name, mode.skipped) for mode in benchmark.modes] == [(name, "it is") for name in names]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "{tmp}/nowhere is no directory: name one that holds a checkpoint"),
        (["{pruned}", "--base", "{tmp}/nowhere"], "the base {tmp}/nowhere does not exist: "),
        (["{pruned}", "--base", "{pruned}"], "the base {pruned} lacks 15 tensor(s), first "),
        (["{lost}"], "{lost} is broken: "),
        (["{foreign}"], "the code of {foreign} may not run: allow it with --trust-remote-code"),
        (["{pruned}", "--device-map", "moon"], "--device-map moon is unknown: choose among plain, "),
        (["{pruned}", "--dtype", "float16"], "--dtype float16 is unknown: choose among float32, bfloat16, "),
        (["{pruned}", "--dtype", "none"], "no way of loading is chosen: name a dtype or a quantisation, and a place"),
        (["{pruned}", "--quantisation", "2bit"], "--quantisation 2bit is unknown: choose among 8bit, 4bit, none, "),
        (["{pruned}", "--plan", "{tmp}/nowhere"], "{tmp}/nowhere: no such file or directory"),
        (["{pruned}", "--plan", "{tmp}/plan"], "self_attn index 9 is out of range: "),
        (["{pruned}", "--batch", "1,x"], "--batch 1,x is no list of whole numbers from 1 on: write, for one, 1,4"),
        (["{pruned}", "--prompt-tokens", "0"], "--prompt-tokens 0 is no list of whole numbers from 1 on: "),
        (
            ["{pruned}", "--prompt-tokens", "8,250", "--new-tokens", "7"],
            "250 prompt tokens and 7 new ones are more than the model has positions for, 256: choose fewer with ",
        ),
        (["{pruned}", "--json", "{tmp}/a/b.json"], "{tmp}/a/b.json cannot be written: {tmp}/a is no directory"),
        (["{pruned}", "--html", "{tmp}/a/b.html"], "{tmp}/a/b.html cannot be written: {tmp}/a is no directory"),
        (["{pruned}", "--plot", "{tmp}/b.jpg"], "--plot {tmp}/b.jpg has no suffix that can be drawn: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bench_that_cannot_run(
    pair: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """What cannot be measured as it was asked for ends with 2 and one line on stderr, before any model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("harness.bench.fresh_process.FreshLoads.load", load)
    foreign_checkpoint(pair[1], tmp_path / "foreign")
    shutil.copytree(pair[1], tmp_path / "lost")
    (tmp_path / "lost" / "model.safetensors").unlink()
    PrunePlan(self_attn=(9,)).to_file(tmp_path / "plan")
    paths = {"pruned": str(pair[1]), "tmp": str(tmp_path)} | {
        name: str(tmp_path / name) for name in ("foreign", "lost")
    }
    if "--base" not in arguments:
        arguments = [*arguments, "--base", str(pair[0])]
    assert run(monkeypatch, "bench", *(argument.format(**paths) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {message.format(**paths)}")
    assert captured.err.count("\n") == 1


def test_models_that_load_and_do_not_run(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where loaded models do not run with a cache, what their loads cost stays, and the reason is noted."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no\nluck")

    def fail(session: Session, *_: object) -> None:
        monkeypatch.setattr(session.model.model.norm, "forward", refuse)
        session.model(torch.ones((1, 1), dtype=torch.long))

    cost = size("peak memory, load and first pass", 1000, 800)
    monkeypatch.setattr("harness.bench.run.load_costs", lambda *_: ([cost], []))
    monkeypatch.setattr("harness.bench.run.running_costs", fail)
    (mode,) = benchmark_checkpoint(pair[1], base=pair[0]).modes
    assert (mode.skipped, mode.measurements) == (None, (cost,))
    assert mode.notes == ("plain-float32: what the loaded models cost is not measured: no.",)


def test_crash_of_ours(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What we raise ourselves while models run ends with 2, not with a note; code that ends the process does, too."""

    def fail(*_: object) -> None:
        raise KeyError("planted")

    def leave(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("harness.bench.run.load_costs", lambda *_: ([], []))
    monkeypatch.setattr("harness.bench.run.running_costs", fail)
    assert run(monkeypatch, "bench", pair[1], "--base", pair[0]) == 2
    assert "internal error, which says nothing of a checkpoint: KeyError: 'planted'" in capsys.readouterr().err
    monkeypatch.setattr("harness.bench.run.running_costs", leave)
    assert run(monkeypatch, "bench", pair[1], "--base", pair[0]) == 2
    assert "ends the process that it runs in: it raises SystemExit" in capsys.readouterr().err
