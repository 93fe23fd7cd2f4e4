"""The command line: exit codes, one-line errors, and what it prints."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, __version__
from tests.harness.command_line import run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tiny unpruned checkpoint of four layers in two shards."""
    return write_tiny_checkpoint(TinySpec(layers=4, shards=2), tmp_path / "source")


def test_prune_says_what_it_did(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`prune` ends with 0 and prints the plan, the bytes before and after, and what was left behind."""
    (source / "pytorch_model.bin").touch()
    destination = tmp_path / "slim"
    assert run(monkeypatch, "prune", source, destination, "--self-attn", "1-2", "--mlp", "0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{destination}: self_attn 1-2, mlp 0 (3 sub-layers)"
    assert lines[1].startswith("tensors: ")
    assert lines[1].endswith("in 2 file(s)")
    assert lines[2] == f"left behind in {source}: pytorch_model.bin"


def test_prune_takes_a_plan_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--plan FILE` and the lists add up."""
    PrunePlan(self_attn=(3,)).to_file(tmp_path / "plan.json")
    slim = tmp_path / "slim"
    assert run(monkeypatch, "prune", source, slim, "--plan", tmp_path / "plan.json", "--mlp", "2") == 0
    config = json.loads((slim / "config.json").read_text())
    assert PrunePlan.from_config(config) == PrunePlan(self_attn=(3,), mlp=(2,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--self-attn", "4"], "self_attn index 4 is out of range: the checkpoint has layers 0 to 3"),
        (["--mlp", "-1"], "mlp index -1 is negative: layers are numbered from 0"),
        (["--mlp", "1,1"], "mlp index 1 is named twice: name each layer once"),
        (["--mlp", "x"], "mlp item 'x' is not an integer or a range such as 12 or 17-20"),
        (["--mlp", "3-1"], "mlp range 3-1 is empty: 1 comes before 3; write 1-3"),
        ([], "nothing to prune: name layers with --self-attn, --mlp or --plan"),
    ],
)
def test_bad_plans_are_one_line(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """A plan that cannot be meant ends with 2, one line on stderr, and nothing written."""
    assert run(monkeypatch, "prune", source, tmp_path / "slim", *arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"prunecheck: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_existing_destination(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An existing destination is refused, and replaced with `--overwrite`."""
    slim = tmp_path / "slim"
    slim.mkdir()
    (slim / "old").touch()
    assert run(monkeypatch, "prune", source, slim, "--mlp", "1") == 2
    expected = f"prunecheck: {slim} exists: name another directory, or replace it with --overwrite\n"
    assert capsys.readouterr().err == expected
    assert (slim / "old").exists()
    assert run(monkeypatch, "prune", source, slim, "--mlp", "1", "--overwrite", "--no-sync", "--no-checksum") == 0
    assert not (slim / "old").exists()
    assert "sha256" not in json.loads((slim / "pruning.json").read_text())["kept"]["model.norm.weight"]


def test_usage_error_is_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown option ends with 2, as everything that could not run."""
    assert run(monkeypatch, "prune", "--nonsense") == 2


@pytest.mark.parametrize("command", ["check", "compare", "prune", "plant", "demo", "bench", "scan", "plan"])
def test_crash_outside_of_a_check(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash of ours ends with 2, whatever the command, and one line that tells how to see the traceback."""
    code = "\x1b[2J"
    crash = {
        "check": "harness.subject.untrusted_files.checkpoint_directory",
        "compare": "harness.report.files.read_record",
        "prune": "pruning.prune_checkpoint",
        "plant": "harness.faults.plant",
        "demo": "harness.cli.demo.run_demo",
        "bench": "harness.subject.untrusted_files.checkpoint_directory",
        "scan": "harness.planning.scan.run.scan_checkpoint",
        "plan": "harness.planning.search.run.search_plan",
    }[command]

    def fails(*_: object, **__: object) -> None:
        raise KeyError(code)

    monkeypatch.setattr(crash, fails)
    arguments = {
        "check": ["a"], "compare": ["a", "b"], "prune": ["a", "b", "--mlp", "1"], "plant": ["kept-keys-lost", "a", "b"],
        "demo": [], "bench": ["a", "--base", "b"], "scan": ["a", "--out", "b"], "plan": ["a", "--drop", "1"],
    }[command]  # fmt: skip
    assert run(monkeypatch, command, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "prunecheck: internal error, which says nothing of a checkpoint: KeyError: '\\x1b[2J'; "
        "set PRUNECHECK_DEBUG=1 to see the traceback, and report it\n"
    )
    monkeypatch.setenv("PRUNECHECK_DEBUG", "1")
    assert run(monkeypatch, command, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "prunecheck: internal error, which says nothing of a checkpoint: KeyError: '\\x1b[2J'"


def test_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is printed goes into a closed pipe the command ends with 2: 1 would stand for a fault."""

    def closed(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    before = sys.stdout, sys.stderr
    monkeypatch.setattr("harness.cli.main.print", closed, raising=False)
    try:
        assert run(monkeypatch, "--version") == 2
    finally:
        sys.stdout, sys.stderr = before  # which typer replaces


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version of the package."""
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"prunecheck {__version__}\n"


def _run_without(modules: set[str], *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, which ends with `code` and may import none of these modules."""
    program = (
        "import sys; from harness.cli import main as cli\n"
        f"sys.argv = ['prunecheck', *{list(map(str, arguments))!r}]\n"
        "try: cli.main()\n"
        f"except SystemExit as end: assert end.code == {code}, end.code\n"
        f"loaded = {modules!r} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result


def test_help_imports_little() -> None:
    """The help of a command loads nothing that the command needs only when it runs, nor rich to print it."""
    unwanted = {"torch", "transformers", "numpy", "rich", "pruning.prune"}
    assert "--no-checksum" in _run_without(unwanted, "prune", "--help").stdout


def test_prune_imports_no_torch(source: Path, tmp_path: Path) -> None:
    """Pruning from the command line loads neither torch nor transformers."""
    _run_without({"torch", "transformers", "numpy"}, "prune", source, tmp_path / "slim", "--mlp", "1")


@pytest.mark.parametrize("command", ["check", "bench"])
def test_an_absent_checkpoint_is_told_at_once(tmp_path: Path, command: str) -> None:
    """That a checkpoint is not there is said before torch is imported, which takes seconds."""
    absent = tmp_path / "absent"
    result = _run_without({"torch", "transformers"}, command, absent, "--base", tmp_path, code=2)
    assert result.stderr == f"prunecheck: {absent} is no directory: name one that holds a checkpoint\n"
