"""`[tool.prunecheck]` of the working directory's pyproject.toml gives defaults of options."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.command_line import run

Pair = tuple[Path, Path]
Captured = pytest.CaptureFixture[str]


def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Write a pyproject.toml, and go where it is."""
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)


def test_defaults(
    tiny_checkpoints: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A key above is for every command that has the option, one in a command's table for it alone; typed ones win."""
    base, pruned = tiny_checkpoints()
    text = f'[tool.prunecheck]\nquiet = true\nbase = "{base}"\n[tool.prunecheck.check]\nquantization = "none"\n'
    settings(tmp_path, monkeypatch, text + 'device-map = "plain"\ndtype = "float32"\nallow-partial = true\n')
    command = ("check", pruned, "-k", "load or stored.base-bytes")
    assert run(monkeypatch, *command, "--json", "report.json") == 0
    captured = capsys.readouterr()
    assert (captured.out.count("\n"), captured.err) == (1, "")
    assert run(monkeypatch, *command, "--dtype", "bfloat16", "--json", "-") == 0
    assert '"plain-bfloat16.load' in capsys.readouterr().out
    assert run(monkeypatch, "prune", base, "slim", "--mlp", "1") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("moon = 1", "moon in [tool.prunecheck] of pyproject.toml is unknown: choose among allow-partial, "),
        ("[tool.prunecheck.check]\nmoon = 1", "moon in [tool.prunecheck.check] of pyproject.toml is unknown: "),
        ("[tool.prunecheck.prune]\nbase = 'SRC'", "base in [tool.prunecheck.prune] of pyproject.toml is unknown: "),
        (
            "[tool.prunecheck.moon]\nbase = 'SRC'",
            "[tool.prunecheck.moon] in pyproject.toml: there is no such command: ",
        ),
        (
            "trust-remote-code = true",
            "trust-remote-code in [tool.prunecheck] of pyproject.toml is not taken from a file: ",
        ),
        (
            "[tool.prunecheck.prune]\noverwrite = true",
            "overwrite in [tool.prunecheck.prune] of pyproject.toml is not taken",
        ),
        ("quiet", "pyproject.toml cannot be read: "),
    ],
)
def test_what_is_refused(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """An unknown key, a command that is not there, an option that gives leave, and broken TOML are one line, exit 2."""
    settings(tmp_path, monkeypatch, f"[tool.prunecheck]\n{text}\n")
    assert run(monkeypatch, "compare", "a.json", "b.json") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"prunecheck: {message}")
    assert captured.err.count("\n") == 1


def test_a_value_of_another_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A value that the option does not take ends with 2, and names the option."""
    settings(tmp_path, monkeypatch, "[tool.prunecheck.scan]\ntokens = 'many'\nout = 'scan'\n")
    assert run(monkeypatch, "scan", "SRC") == 2
    assert "--tokens" in capsys.readouterr().err


def test_a_checkpoint_sets_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A pyproject.toml beside a config.json came with a checkpoint: it is refused; one of other tools is not."""
    (tmp_path / "config.json").write_text("{}")
    settings(tmp_path, monkeypatch, "[tool.prunecheck]\nquiet = true\n")
    assert run(monkeypatch, "--version") == 2
    assert capsys.readouterr().err.startswith("prunecheck: [tool.prunecheck] in pyproject.toml is beside a checkpoint")
    settings(tmp_path, monkeypatch, "[tool.other]\nquiet = true\n")
    assert run(monkeypatch, "--version") == 0
