"""The command line: exit codes, one-line errors, and what it prints."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, __version__, prune_checkpoint
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
    assert lines[1].endswith("in 2 files")
    assert lines[2] == f"left behind in {source}: pytorch_model.bin"


def test_dry_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`prune --dry-run` says what `prune` says, and that nothing was written, and refuses what it refuses."""
    command = ("prune", source, tmp_path / "slim", "--self-attn", "1-2", "--mlp", "0")
    assert run(monkeypatch, *command, "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    assert run(monkeypatch, *command) == 0
    assert said == [*capsys.readouterr().out.splitlines(), "nothing was written: leave --dry-run out to write it"]
    assert run(monkeypatch, *command, "--dry-run") == 2
    assert capsys.readouterr().err.startswith(f"prunecheck: {tmp_path / 'slim'} exists: ")
    assert run(monkeypatch, *command, "--dry-run", "--overwrite") == 0


def test_nothing_to_prune(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all that is named is pruned already there is nothing to prune; where something is left it is pruned."""
    slim = tmp_path / "slim"
    assert run(monkeypatch, "prune", source, slim, "--mlp", "0,2") == 0
    capsys.readouterr()
    assert run(monkeypatch, "prune", slim, tmp_path / "again", "--mlp", "2") == 2
    assert capsys.readouterr().err == f"prunecheck: nothing to prune: {slim} lacks mlp 2 already\n"
    assert not (tmp_path / "again").exists()
    assert run(monkeypatch, "prune", slim, tmp_path / "again", "--mlp", "2-3") == 0


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("model-Q4_K_M.gguf", "model-Q4_K_M.gguf is a GGUF file: name the safetensors checkpoint it came from"),
        (
            "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main",
            "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main is an address: name the hub id, Qwen/Qwen3-0.6B",
        ),
        ("hf.co/Qwen/Qwen3-0.6B", "hf.co/Qwen/Qwen3-0.6B is an address: name the hub id, Qwen/Qwen3-0.6B"),
    ],
)
def test_what_is_not_a_checkpoint(
    named: str,
    message: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A GGUF file and an address of the hub are known as such, and what to name instead is said in one line."""
    monkeypatch.chdir(tmp_path)
    Path("model-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert run(monkeypatch, "prune", named, "slim", "--mlp", "1") == 2
    assert capsys.readouterr().err == f"prunecheck: {message}\n"
    assert run(monkeypatch, "check", source, "--base", named) == 2
    assert capsys.readouterr().err == f"prunecheck: the base {message}\n"
    assert run(monkeypatch, "check", named) == 2
    assert capsys.readouterr().err == f"prunecheck: {message}\n".replace("//", "/")  # a path has one


def test_a_hub_id_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hub id that cannot be fetched is one line with the command that fetches it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert run(monkeypatch, "prune", "some-org/some-model", tmp_path / "slim", "--mlp", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith("prunecheck: some-org/some-model is not a local directory and cannot be fetched ")
    assert error.endswith("fetch it where there is a network: hf download some-org/some-model\n")
    assert error.count("\n") == 1


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
        "prune": "pruning.files.source.find_checkpoint",
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


def _piped(*arguments: str | Path, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run the installed command into a pipe that nobody reads; the exit code and stderr are the command's own."""
    command = shutil.which("prunecheck", path=str(Path(sys.executable).parent))
    assert command is not None
    line = f"{shlex.join([command, *map(str, arguments)])} | true; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_not_an_error(unbuffered: str, source: Path, tmp_path: Path) -> None:
    """Where nobody reads to the end the command ends as it would have, or as SIGPIPE does, and stderr is silent."""
    prune_checkpoint(source, tmp_path / "slim", PrunePlan(mlp=(1,)), sync=False)
    file = tmp_path / "report.json"
    check = ("check", tmp_path / "slim", "-k", "stored.keys", "--allow-partial", "-q", "--json", file)
    for arguments in (("--version",), check):
        result = _piped(*arguments, unbuffered=unbuffered)
        assert result.returncode in (0, 141)
        assert result.stderr == ""
    assert json.loads(file.read_text())["verdict"] == "sound"


def test_a_closed_pipe_leaves_the_verdict(source: Path, tmp_path: Path) -> None:
    """A report that nobody reads to its end costs neither the exit code nor the files."""
    prune_checkpoint(source, tmp_path / "slim", PrunePlan(mlp=(1,)), sync=False)
    PrunePlan(mlp=(2,)).to_file(tmp_path / "other.json")
    options = ("-k", "stored.keys", "--plan", tmp_path / "other.json", "--json", tmp_path / "report.json", "-q")
    result = _piped("check", tmp_path / "slim", *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "faulty"


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
