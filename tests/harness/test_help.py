"""`--help` and shell completion: what a user can read before the first run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from harness.cli.main import app
from tests.harness.command_line import run

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHARED = {  # option -> the commands that have it
    "--json": {"demo", "scan", "plan", "check", "bench", "matrix", "bisect", "doctor"},
    "--quiet": {
        "demo", "scan", "plan", "prune", "check", "compare", "bench", "refresh", "matrix", "bisect", "doctor",
    },
    "--quantization": {"check", "bench", "matrix", "bisect"},
    "--revision": {"scan", "plan", "prune", "check", "bench", "matrix", "bisect"},
}  # fmt: skip


def test_the_commands_are_in_the_order_of_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-h` lists the commands as people need them, each with a whole sentence in 80 columns."""
    assert run(monkeypatch, "-h") == 0
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    listed = [line for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert [line.split()[0] for line in listed][:5] == ["demo", "scan", "plan", "prune", "check"]
    assert len(listed) == len(COMMANDS)
    assert not [line for line in listed if line.endswith("...") or len(line) > 80]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`-h` and `--help` of a command say the same, and show examples that its options allow, in 80 columns."""
    printed = []
    for option in ("-h", "--help"):
        assert run(monkeypatch, name, option) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    lines = printed[0].splitlines()
    assert max(map(len, lines)) <= 80
    examples = [line.strip() for line in lines[lines.index("  Examples:") + 1 :]]
    assert examples
    for example in examples:
        program, command, *arguments = shlex.split(example.partition(" | ")[0])
        assert (program, command) == ("prunecheck", name)
        COMMANDS[name].make_context(name, arguments).close()


@pytest.mark.parametrize("option", SHARED)
def test_shared_options(option: str) -> None:
    """An option that several commands share is there in each."""
    having = {name for name, each in COMMANDS.items() if any(option in one.opts for one in each.params)}
    assert having == SHARED[option]


def test_completion(tmp_path: Path) -> None:
    """A shell that asks what a word may become is answered."""
    program = "import sys; sys.argv = ['prunecheck']; from harness.cli.main import main; main()"
    environment = os.environ | {
        "_PRUNECHECK_COMPLETE": "complete_bash", "COMP_WORDS": "prunecheck ma", "COMP_CWORD": "1",
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["matrix"]
    assert result.stderr == ""
