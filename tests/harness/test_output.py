"""What commands write where: `-q`, `-v`, `--json -`, and lines of progress off a terminal."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.command_line import run

Pair = tuple[Path, Path]
STORED = ("--device-map", "plain", "--dtype", "float32", "--quantization", "none", "-k", "stored or plain-float32.load")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pair(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


def test_quiet(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """`check -q` writes the verdict in one line and nothing on stderr; an error is one line there all the same."""
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], *STORED, "--allow-partial", "-q") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("sound: ")
    assert captured.out.count("\n") == 1
    assert captured.err == ""
    assert run(monkeypatch, "check", pair[1], "-q", "-k", "moon") == 2
    assert capsys.readouterr() == ("", "prunecheck: no check has a name that matches 'moon'\n")


def test_quiet_prune(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """`prune -q` writes the checkpoint and no word."""
    assert run(monkeypatch, "prune", pair[0], tmp_path / "slim", "--mlp", "1", "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "slim" / "config.json").is_file()


def test_verbose(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """`check -v` shows each check with its outcome, and a line on stderr for each."""
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], *STORED, "--allow-partial", "-v") == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert ["stored.keys", "passed,"] in [line[:2] for line in lines]
    assert any(line.endswith(" stored.keys") for line in captured.err.splitlines())


def test_the_record_on_stdout(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """With `--json -` stdout is the record alone, and no file of that name appears."""
    monkeypatch.chdir(pair[0].parent)
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], *STORED, "--allow-partial", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "sound"
    assert not Path("-").exists()


def test_lines_off_a_terminal(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Off a terminal `check` writes one line for each way of loading to stderr."""
    options = ("--device-map", "plain", "--quantization", "none", "-k", "stored.keys or load", "--allow-partial")
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], *options) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["stored", "plain-float32", "plain-bfloat16"]
    assert all(line.startswith("prunecheck: [") for line in lines)


def test_a_revision_of_a_directory(pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """`--revision` belongs to a hub id: beside a directory, or without a base, it is refused in one line."""
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], "--revision", "main") == 2
    expected = f"prunecheck: {pair[0]} is a directory, which has no revision 'main': leave it out\n"
    assert capsys.readouterr().err == expected
    assert run(monkeypatch, "check", pair[1], "--revision", "main") == 2
    assert capsys.readouterr().err == "prunecheck: --revision main is one of --base: name the base's hub id, too\n"
