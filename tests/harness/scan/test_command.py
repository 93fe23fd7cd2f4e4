"""The command `scan`: what it writes and says, how it goes on after an interruption, errors of one line."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.planning.scan.record import Scan
from harness.planning.scan.run import scan_checkpoint
from harness.planning.sweep.journal import JOURNAL_FILE, opened
from harness.planning.sweep.model import weights_digest
from harness.reference.models import load_stock, reference_logits, without_sublayers
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, prune_checkpoint
from pruning.files.source import read_source
from tests.harness.command_line import run
from tests.harness.scan.scanned import scannable, write_text

pytestmark = pytest.mark.newest

PICTURES = {
    f"{name}{suffix}"
    for name in ("nll", "kl", "changed", "influence", "update", "angular")
    for suffix in (".png", ".svg")
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock checkpoint."""
    return scannable(tmp_path_factory.mktemp("scanned") / "base")


def measured(scan: Scan) -> tuple[Any, ...]:
    """Return the numbers of a scan, which do not depend on where and when."""
    return scan.windows, scan.contributions, scan.distances


def test_scan(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Record and pictures are in the directory, the ranking is on stdout, nothing on stderr; again, nothing is run."""
    monkeypatch.chdir(tmp_path)
    command = ("scan", base, "--out", "out", "--tokens", "300", "--json", "scan.json")
    assert run(monkeypatch, *command) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "2 windows of 128 tokens: code, dialogue" in captured.out
    assert "by nll, the least first" in captured.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {JOURNAL_FILE, "scan.json", *PICTURES}
    scan = Scan.from_file(tmp_path / "out" / "scan.json")
    assert scan == Scan.from_file(tmp_path / "scan.json")
    assert [each.name for each in scan.contributions] == [
        f"{name} {index}" for name in ("self_attn", "mlp", "layer") for index in range(3)
    ]
    assert {len(values) for each in scan.contributions for values in each.values.values()} == {2}
    assert [(each.first, each.layers) for each in scan.distances] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]
    assert scan.mode == "plain-float32"

    def load(*_: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("harness.planning.scan.run.load_model", load)
    assert run(monkeypatch, *command) == 0
    assert measured(Scan.from_file(tmp_path / "out" / "scan.json")) == measured(scan)


def test_numbers(base: Path, tmp_path: Path) -> None:
    """Each number is what its definition says, from one evaluation of the stock model a removal, and its streams."""
    text = write_text(tmp_path / "text", 2 * 128 + 5)
    scan = scan_checkpoint(base, out=tmp_path / "out", texts=[text])
    ids = torch.tensor(list(text.read_bytes()))
    with quiet_libraries():
        model: Any = load_stock(base)
        tokenizer_ids = _tokens(base, text.read_text(encoding="utf-8"))
    rows = tokenizer_ids[:256].view(2, 128)
    assert len(tokenizer_ids) == len(ids)
    full = reference_logits(model, rows).log_softmax(-1)[:, :-1]
    nll = -full.gather(-1, rows[:, 1:, None])[..., 0].mean(-1)
    assert [window.nll for window in scan.windows] == pytest.approx(nll.tolist(), rel=1e-5)
    with torch.no_grad():
        streams = torch.stack(_streams(model, rows))  # (layers + 1, rows, tokens, hidden)
    for each in scan.contributions:
        plan = PrunePlan(
            self_attn=(each.layer,) if each.sublayer != "mlp" else (),
            mlp=(each.layer,) if each.sublayer != "self_attn" else (),
        )
        with without_sublayers(model, plan.self_attn, plan.mlp):
            removed = reference_logits(model, rows).log_softmax(-1)[:, :-1]
        rise = (full - removed).gather(-1, rows[:, 1:, None])[..., 0].mean(-1)
        assert each.values["nll"] == pytest.approx(rise.tolist(), abs=1e-4)
        kl = (full.exp() * (full - removed)).sum(-1).mean(-1)
        assert each.values["kl"] == pytest.approx(kl.tolist(), abs=1e-4)
        changed = (full.argmax(-1) != removed.argmax(-1)).float().mean(-1)
        assert each.values["changed"] == pytest.approx(changed.tolist(), abs=1e-6)
        if each.sublayer == "layer":
            entering, leaving = streams[each.layer], streams[each.layer + 1]
            cosine = torch.cosine_similarity(entering, leaving, dim=-1)
            assert each.values["influence"] == pytest.approx((1 - cosine).mean(-1).tolist(), abs=1e-5)
            update = (leaving - entering).norm(dim=-1) / entering.norm(dim=-1)
            assert each.values["update"] == pytest.approx(update.mean(-1).tolist(), rel=1e-4)
    for distance in scan.distances:
        cosine = torch.cosine_similarity(
            streams[distance.first, :, -1], streams[distance.first + distance.layers, :, -1], dim=-1
        )
        assert distance.values == pytest.approx((cosine.arccos() / math.pi).tolist(), abs=1e-4)


def _tokens(base: Path, text: str) -> torch.Tensor:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(base)(text)["input_ids"]
    return torch.tensor(ids)


def _streams(model: Any, rows: torch.Tensor) -> list[torch.Tensor]:
    """Return what enters each layer, and what leaves the last."""
    streams: list[torch.Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _, args: streams.append(args[0])) for layer in model.model.layers]
    handles.append(model.model.norm.register_forward_pre_hook(lambda _, args: streams.append(args[0])))
    model(rows, use_cache=False)
    for handle in handles:
        handle.remove()
    return streams


def test_progress(base: Path, tmp_path: Path) -> None:
    """How much is done grows from layer to layer, also within a window, and ends with all windows."""
    told: list[tuple[float, int, str]] = []
    text = write_text(tmp_path / "text", 2 * 128)
    scan_checkpoint(base, out=tmp_path / "out", texts=[text], progress=lambda *each: told.append(each))
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1] == 2
    assert len({each for each in done if 0 < each < 1}) == 2  # three layers
    assert told[-1][2] == str(text)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_killed_and_called_again(base: Path, tmp_path: Path, share: float) -> None:
    """Wherever the writing of measurements was cut off, the next call comes to the very same numbers."""
    text = write_text(tmp_path / "text", 5 * 16)
    out = tmp_path / "out"
    options: dict[str, Any] = {"texts": [text], "tokens": 5 * 16, "metrics": ("nll", "update", "angular")}
    if not out.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.planning.sweep.calibration_text.WINDOW", 16)
            scan_checkpoint(base, out=out, **options)
    whole = (out / JOURNAL_FILE).read_bytes()
    expected = Scan.from_file(out / "scan.json")
    assert len(expected.windows) == 5
    header = whole.index(b"\n") + 1
    (out / JOURNAL_FILE).write_bytes(whole[: header + int(share * (len(whole) - header))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.planning.sweep.calibration_text.WINDOW", 16)
        assert measured(scan_checkpoint(base, out=out, **options)) == measured(expected)
    assert (out / JOURNAL_FILE).read_bytes() == whole


def test_killed_in_earnest(base: Path, tmp_path: Path) -> None:
    """A process that is killed leaves what it had measured, and the next one measures the rest alone."""
    text, out = write_text(tmp_path / "text", 3 * 128), tmp_path / "out"
    killed = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from harness.planning.scan import run\n"
        "measured, calls = run._measured, []\n"
        "def die(*given):\n"
        "    calls.append(given)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return measured(*given)\n"
        "run._measured = die\n"
        f"run.scan_checkpoint({str(base)!r}, out=Path({str(out)!r}), texts=[Path({str(text)!r})])\n"
    )
    finished = subprocess.run([sys.executable, "-c", killed], cwd=Path(__file__).parents[3], check=False)
    assert finished.returncode == -signal.SIGKILL
    header, *entries = (out / JOURNAL_FILE).read_text(encoding="utf-8").splitlines()
    assert json.loads(header)["windows_at_once"] == 1
    assert len(entries) == 2
    whole = scan_checkpoint(base, out=tmp_path / "whole", texts=[text])
    assert measured(scan_checkpoint(base, out=out, texts=[text])) == measured(whole)
    assert (out / JOURNAL_FILE).read_text(encoding="utf-8").splitlines()[1:3] == entries


def test_pruned_and_offloaded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned checkpoint is scanned for what it still has, also from the disk, which is taken where nothing else fits.

    What was begun from the disk goes on from there, though there is room by now.
    """
    plan = PrunePlan(self_attn=(0, 1), mlp=(1,))
    prune_checkpoint(base, tmp_path / "pruned", plan, sync=False)
    text = write_text(tmp_path / "text", 3 * 128)
    plain = scan_checkpoint(tmp_path / "pruned", out=tmp_path / "plain", texts=[text])
    assert plain.plan == plan.to_dict()
    names = [each.name for each in plain.contributions]
    assert names == ["self_attn 2", "mlp 0", "mlp 2", "layer 0", "layer 2"]
    by_name = {each.name: each.values for each in plain.contributions}
    assert by_name["layer 0"]["nll"] == by_name["mlp 0"]["nll"]
    monkeypatch.setattr("harness.planning.sweep.model.available_bytes", lambda: 1000)
    offloaded = scan_checkpoint(tmp_path / "pruned", out=tmp_path / "disk", texts=[text])
    assert offloaded.mode == "disk-all-float32"
    for left, right in zip(plain.contributions, offloaded.contributions, strict=True):
        for metric, values in left.values.items():
            assert values == pytest.approx(right.values[metric], abs=1e-4)
    monkeypatch.undo()
    journal = tmp_path / "disk" / JOURNAL_FILE
    journal.write_text(journal.read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    again = scan_checkpoint(tmp_path / "pruned", out=tmp_path / "disk", texts=[text])
    assert again.mode == "disk-all-float32"
    assert measured(again) == measured(offloaded)


def test_without_matplotlib(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where matplotlib is not installed one line says so, and all else is there."""
    monkeypatch.setattr("harness.planning.scan.plot.find_spec", lambda name: None)
    assert run(monkeypatch, "scan", base, "--out", tmp_path / "out", "--tokens", "8", "--metric", "influence") == 0
    out = capsys.readouterr().out
    assert f"no pictures are drawn into {tmp_path}/out: matplotlib is not installed; pip install" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {JOURNAL_FILE, "scan.json"}
    scan = Scan.from_file(tmp_path / "out" / "scan.json")
    assert scan.nll.mean is None  # no head ran
    assert scan.distances == ()


def test_other_weights_have_another_digest(base: Path, tmp_path: Path) -> None:
    """A checkpoint of the same shape with other weights is told apart; a copy is not."""
    same, other = scannable(tmp_path / "same"), scannable(tmp_path / "other", seed=1)
    digests = [weights_digest(read_source(root)) for root in (base, same, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "{tmp}/nowhere does not exist: name a checkpoint directory or a hub id"),
        (["someone/nothing"], "someone/nothing is not a local directory and cannot be fetched from the hub: "),
        (["{mute}"], "{mute} has no tokenizer: "),
        (["{base}", "--metric", "nll,nil"], "--metric nil is unknown: choose among nll, kl, changed, influence, "),
        (["{base}", "--metric", ","], "--metric names nothing: choose among "),
        (["{base}", "--device-map", "plain,gpu"], "--device-map plain,gpu is not one way of loading: name one"),
        (["{base}", "--device-map", "gpus"], "gpus-float32 cannot be loaded: this machine has 0 GPU(s), "),
        (["{base}", "--dtype", "float16"], "--dtype float16 is unknown: choose among float32, bfloat16"),
        (["{base}", "--text", "{tmp}/nowhere"], "--text {tmp}/nowhere cannot be read: No such file or directory"),
        (["{base}", "--text", "{tmp}"], "--text {tmp} is no file: name a file of UTF-8 text"),
        (["{base}", "--text", "{tmp}/latin"], "--text {tmp}/latin is not UTF-8 at byte 1: convert it"),
        (["{base}", "--text", "{tmp}/short"], "no text fills a window of 128 tokens, the longest has 90: give more "),
        (["{base}", "--out", "{tmp}"], "--out {tmp} holds 'broken' and no scan: name a directory of its own"),
        (["{base}", "--out", "{tmp}/short/out"], "--out {tmp}/short/out cannot be made: Not a directory"),
        (["{base}", "--out", "{tmp}/done"], "--out {tmp}/done holds a scan of another text or --tokens: name another "),
        (
            ["{base}", "--out", "{tmp}/done", "--tokens", "8", "--dtype", "bfloat16"],
            "--out {tmp}/done holds a scan of another --dtype: name another --out",
        ),
        (["{base}", "--out", "{tmp}/broken"], "{tmp}/broken/measurements.jsonl does not hold measurements of a scan: "),
        (["{base}", "--json", "{tmp}/a/b.json"], "{tmp}/a/b.json cannot be written: {tmp}/a is no directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_scan_that_cannot_run(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """What cannot be scanned as it was asked for ends with 2 and one line on stderr; what was there stays."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (tmp_path / "latin").write_bytes(b"a\xe9")
    write_text(tmp_path / "short", 90)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / JOURNAL_FILE).write_text("{}\n", encoding="utf-8")
    done = tmp_path / "done"
    scan_checkpoint(base, out=done, tokens=8, metrics=("nll", "kl", "changed", "influence", "update", "angular"))
    before = (done / JOURNAL_FILE).read_bytes(), (done / "scan.json").read_bytes()
    mute = scannable(tmp_path / "mute")
    (mute / "tokenizer.json").unlink()
    names = {"tmp": tmp_path, "base": base, "mute": mute}
    given = [argument.format(**names) for argument in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert run(monkeypatch, "scan", *given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {message.format(**names)}")
    assert captured.err.count("\n") == 1
    assert before == ((done / JOURNAL_FILE).read_bytes(), (done / "scan.json").read_bytes())


def test_one_at_a_time(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While one scan writes to a directory, another is refused."""
    with opened(tmp_path / "out", {}, {}):
        assert run(monkeypatch, "scan", base, "--out", tmp_path / "out") == 2
    assert f"--out {tmp_path}/out is being written by another scan: wait for it" in capsys.readouterr().err


def test_records_are_read_strictly(base: Path, tmp_path: Path) -> None:
    """A record comes back equal, and anything else is refused, whatever is missing, renamed or of another type."""
    scan = scan_checkpoint(base, out=tmp_path / "out", tokens=8)
    content = scan.to_dict()
    assert Scan.from_dict(json.loads(json.dumps(content))) == scan
    for broken in (
        None,
        [],
        {**content, "schema": 2},
        {**content, "kind": "benchmark"},
        {name: value for name, value in content.items() if name != "windows"},
        {**content, "metrics": ["nil"]},
        {**content, "windows": [*content["windows"], content["windows"][0]]},
        {**content, "contributions": [{**content["contributions"][0], "sublayer": "lm_head"}]},
        {**content, "layers": "3"},
    ):
        with pytest.raises(ValueError, match="not a scan of schema 1"):
            Scan.from_dict(broken)
