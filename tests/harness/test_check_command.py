"""The commands `check`, `compare` and `plant`: exit codes, files, one-line errors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness import Report
from harness.faults import FAULTS, foreign_checkpoint, plant
from harness.report.divergence import divergences
from harness.report.report_page import report_page
from pruning import PrunePlan
from tests.harness.command_line import run

Pair = tuple[Path, Path]
SMALL = ("--device-map", "plain", "--dtype", "float32", "--quantisation", "none")


@pytest.fixture(scope="module")
def sound(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture(scope="module")
def faulty(sound: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that lacks keys which its plan keeps."""
    directory = tmp_path_factory.mktemp("faulty") / "faulty"
    plant("kept-keys-lost", sound[1], directory)
    return directory


def test_sound(sound: Pair, tmp_path: Path) -> None:
    """On a sound checkpoint the installed command ends with 0, says so on stdout, and on stderr how far it is."""
    base, pruned = sound
    command = shutil.which("prunecheck", path=str(Path(sys.executable).parent))
    assert command is not None
    files = ("--json", tmp_path / "report.json", "--junit", tmp_path / "junit.xml", "--html", tmp_path / "report.html")
    arguments = [command, "check", pruned, "--base", base, *SMALL, *files]
    result = subprocess.run(list(map(str, arguments)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert [line.rpartition(" ")[2] for line in result.stderr.splitlines()] == ["stored", "plain-float32"]
    assert "sound: the pruned checkpoint is the model that was meant" in result.stdout
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    report = Report.from_dict(written)
    assert written["schema"] == 2
    assert json.loads(json.dumps(report.to_dict())) == written
    assert (report.verdict, report.base) == ("sound", str(base))
    assert {check.name.partition(".")[0] for check in report.checks} == {"stored", "plain-float32"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == report_page(report)  # JSON is the truth
    (divergence,) = divergences(report)
    assert (divergence.mode, len(divergence.points), divergence.first_beyond) == ("plain-float32", 7, None)
    cases = [case.get("name") for case in ElementTree.parse(tmp_path / "junit.xml").iter("testcase")]
    assert len(cases) >= len(report.checks)


def test_faulty(
    sound: Pair, faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a faulty one it ends with 1 and tells of cause and remedy; of two reports `compare` tells which is worse."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    of_base = ("--base", sound[0], *SMALL, "-k", "stored or identity.random")
    assert run(monkeypatch, "check", faulty, *of_base, "--json", bad) == 1
    captured = capsys.readouterr()
    assert [line.rpartition(" ")[2] for line in captured.err.splitlines()] == ["stored", "plain-float32"]
    text = " ".join(captured.out.split())
    assert "faulty: " in text
    assert "4 key(s) that the plan (self_attn 1-2, mlp 1, from pruning.json) keeps are not stored" in text
    assert "Prune the base again with prunecheck." in text
    assert Report.from_file(bad).verdict == "faulty"
    assert run(monkeypatch, "check", sound[1], *of_base, "--json", good) == 0
    assert run(monkeypatch, "compare", good, bad) == 1
    assert run(monkeypatch, "compare", bad, good) == 0
    assert run(monkeypatch, "compare", good, good) == 0


def test_undecided(sound: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where too little was checked it ends with 3 and says what to do; with `--allow-partial` it ends with 0."""
    command = ("check", sound[1], *SMALL, "-k", "stored.keys")
    assert run(monkeypatch, *command) == 3
    captured = capsys.readouterr()
    assert captured.err == "prunecheck: [0/1] stored\n"
    assert "undecided: bytes and logits could not be checked" in captured.out
    assert "--allow-partial" in captured.out
    assert run(monkeypatch, *command, "--allow-partial") == 0
    assert "bytes and logits were not checked" in " ".join(capsys.readouterr().out.split())


def test_wrong_plan(sound: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--plan FILE` says what was meant: what the checkpoint lacks beyond it is a fault."""
    command = ("check", sound[1], "--base", sound[0], *SMALL, "-k", "stored.keys", "--allow-partial", "--plan")
    PrunePlan(self_attn=(1, 2), mlp=(1,)).to_file(tmp_path / "right.json")
    assert run(monkeypatch, *command, tmp_path / "right.json") == 0
    PrunePlan(self_attn=(1, 2)).to_file(tmp_path / "wrong.json")
    assert run(monkeypatch, *command, tmp_path / "wrong.json") == 1


def test_code_of_a_third_party(
    sound: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint's own code runs with `--trust-remote-code` alone; without it the verdict is left open."""
    foreign_checkpoint(sound[1], tmp_path / "foreign")
    canary = tmp_path / "canary"
    with (tmp_path / "foreign" / "modeling_skipping_qwen3.py").open("a", encoding="utf-8") as code:
        code.write(f"\nfrom pathlib import Path\nPath({str(canary)!r}).touch()\n")
    command = ("check", tmp_path / "foreign", "--base", sound[0], *SMALL, "-k", "stored or identity.random")
    assert run(monkeypatch, *command) == 3
    assert "--trust-remote-code" in capsys.readouterr().out
    assert not canary.exists()
    assert run(monkeypatch, *command, "--trust-remote-code") == 0
    assert canary.exists()


def test_workers(
    sound: Pair, faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `-n 2` outcomes, faults and their order are those of `-n 1`, and stderr has as many lines."""
    command = ("check", faulty, "--base", sound[0], *SMALL, "-k", "stored or load or identity.random")
    reports = []
    for workers in ("1", "2"):
        path = tmp_path / f"{workers}.json"
        assert run(monkeypatch, *command, "-n", workers, "--json", path) == 1
        reports.append(Report.from_file(path))
    one, two = reports
    assert [(c.name, c.outcome, c.reason) for c in one.checks] == [(c.name, c.outcome, c.reason) for c in two.checks]
    assert {check.name.partition(".")[0] for check in two.checks} == {"stored", "plain-float32"}
    assert (one.faults, one.findings, one.coverage) == (two.faults, two.findings, two.coverage)
    named = [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(named) == ["plain-float32", "plain-float32", "stored", "stored"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], "{tmp}/nowhere is no directory: name one that holds a checkpoint"),
        (["{tmp}"], "{tmp} "),
        (["{pruned}/config.json"], "{pruned}/config.json is no directory: name one that holds a checkpoint"),
        (["{pruned}", "--base", "{tmp}/nowhere"], "the base {tmp}/nowhere does not exist: "),
        (["{pruned}", "--base", "{pruned}"], "the base {pruned} lacks 15 tensor(s), first "),
        (
            ["{base}", "--base", "{pruned}"],
            "the base {pruned} lacks model.layers.1.mlp.down_proj.weight, which {base} ",
        ),
        (["{base}", "--base", "{base}"], "nothing is pruned in {base}: it holds every tensor of the base {base}; "),
        (["{pruned}", "--device-map", "moon"], "--device-map moon is unknown: choose among plain, "),
        (["{pruned}", "--dtype", "float16"], "--dtype float16 is unknown: choose among float32, bfloat16, "),
        (["{pruned}", "--quantisation", "2bit"], "--quantisation 2bit is unknown: choose among 8bit, 4bit, none, "),
        (["{pruned}", "--plan", "{tmp}/nowhere"], "{tmp}/nowhere: no such file or directory"),
        (["{pruned}", "--plan", "{pruned}/config.json"], "{pruned}/config.json"),
        (["{pruned}", "--json", "{tmp}/a/b.json"], "{tmp}/a/b.json cannot be written: {tmp}/a is no directory"),
        (["{pruned}", "--html", "{tmp}"], "{tmp} cannot be written: it is a directory"),
        (["{pruned}", "--junit", "{tmp}"], "{tmp} cannot be written: it is a directory"),
        (["{pruned}", "-k", "("], "-k '(' is no expression: "),
        (["{pruned}", "-k", "moon"], "no check has a name that matches 'moon'"),
        (["{pruned}", "-n", "0"], "-n 0 is no number of processes: give one from 1 on, or auto"),
        (["{pruned}", "-n", "many"], "-n many is no number of processes: give one from 1 on, or auto"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_check_that_cannot_run(
    sound: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """What cannot be judged as it was asked for ends with 2 and one line on stderr, before any work."""
    paths = {"tmp": str(tmp_path), "pruned": str(sound[1]), "base": str(sound[0])}
    assert run(monkeypatch, "check", *(argument.format(**paths) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {message.format(**paths)}")
    assert captured.err.count("\n") == 1


def test_an_unpruned_checkpoint(
    sound: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of the base is not judged as pruned; against a plan that was meant it is, and is faulty."""
    shutil.copytree(sound[0], tmp_path / "copy")
    command = ("check", tmp_path / "copy", "--base", sound[0], *SMALL, "-k", "stored", "-q")
    assert run(monkeypatch, *command) == 2
    assert capsys.readouterr().err.startswith(f"prunecheck: nothing is pruned in {tmp_path / 'copy'}: ")
    PrunePlan(mlp=(1,)).to_file(tmp_path / "plan.json")
    assert run(monkeypatch, *command, "--plan", tmp_path / "plan.json") == 1


def test_report_that_cannot_be_written_in_the_end(
    sound: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where only writing shows that a file cannot be written, one line says so, after the verdict was printed."""
    (tmp_path / "loop").symlink_to("loop")
    command = ("check", sound[1], "-k", "stored.keys", "--allow-partial", "-q", "--json", tmp_path / "loop")
    assert run(monkeypatch, *command) == 2
    captured = capsys.readouterr()
    assert "sound: " in captured.out
    assert captured.err.startswith(f"prunecheck: {tmp_path / 'loop'} cannot be written: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, "{}", "[1", "null"])
def test_compare_what_is_no_report(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not there, or no report, ends with 2 and one line that names it."""
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    assert run(monkeypatch, "compare", path, path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {path} ")
    assert captured.err.count("\n") == 1


def test_plant_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`plant --list` shows each fault in a line: name, family, where it is, symptom, what is done, where it was met."""
    assert run(monkeypatch, "plant", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=3)[:3] for line in lines] == [
        [fault.id, fault.family, fault.where] for fault in FAULTS.values()
    ]
    for line, fault in zip(lines, FAULTS.values(), strict=True):
        met = f" (met in {fault.met})" if fault.met else ""
        assert line.endswith(f" {fault.description}{met}")
        assert f" {fault.symptom} " in line


def test_plant(
    sound: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plant FAULT CKPT DST` writes a faulty copy, and leaves the sound checkpoint as it is."""
    before = {path.name: path.read_bytes() for path in sound[1].iterdir()}
    assert run(monkeypatch, "plant", "kept-keys-lost", sound[1], tmp_path / "new") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: {FAULTS['kept-keys-lost'].description}\n"
    assert (tmp_path / "new" / "config.json").is_file()
    assert {path.name: path.read_bytes() for path in sound[1].iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a fault, a sound pruned checkpoint and a directory to write; --list shows the faults"),
        (["moon", "{pruned}", "{tmp}/new"], "there is no fault 'moon'; there are adapter-on-pruned, "),
        (["kept-keys-lost", "{pruned}"], "name a fault, a sound pruned checkpoint and a directory to write; "),
        (["kept-keys-lost", "{pruned}", "{tmp}"], "{tmp} exists: name a directory that does not"),
        (["kept-keys-lost", "{tmp}", "{tmp}/new"], "{tmp} is no checkpoint: it has no config.json"),
        (["right-padding", "{pruned}", "{tmp}/new"], "right-padding is not planted in files, but in the load: "),
        (["lm-head-lost", "{pruned}", "{tmp}/new"], "lm-head-lost cannot be planted: "),
    ],
)
def test_plant_that_cannot_be(
    sound: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """A fault that cannot be planted ends with 2, one line on stderr, and nothing written."""
    paths = {"tmp": str(tmp_path), "pruned": str(sound[1])}
    assert run(monkeypatch, "plant", *(argument.format(**paths) for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {message.format(**paths)}")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
