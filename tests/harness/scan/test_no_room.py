"""`scan` and `plan` where the directory that they write is on a full disk, or read-only: one line, and they go on."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.file_systems import Mount, mount_read_only
from tests.harness.command_line import run
from tests.harness.scan.scanned import scannable, write_text

pytestmark = pytest.mark.newest

PAGE = 4096  # bytes, in which such a file system counts
COMMANDS = {"scan": ["--metric", "nll"], "plan": ["--drop", "2"]}
FILES = {"scan": ["scan.json"], "plan": ["search.json", "plan.json"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds a checkpoint and a text of two windows."""
    folder = tmp_path_factory.mktemp("no-room")
    scannable(folder / "source", layers=2)
    write_text(folder / "text", 2 * 128)
    return folder


def results(out: Path, command: str) -> dict[str, Any]:
    """Return what is there of a command's files, without what it ran on; ValueError for one that is not whole."""
    found = {name: json.loads((out / name).read_text()) for name in FILES[command] if (out / name).exists()}
    for content in found.values():
        content.pop("environment", None)
    return found


@pytest.mark.parametrize("command", ["scan", "plan"])
def test_a_disk_that_is_full(
    command: str,
    folder: Path,
    mount: Mount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However little room is left, it is one line, no file is a half one, and once there is room it goes on."""
    line = [command, folder / "source", "--text", folder / "text", *COMMANDS[command]]
    assert run(monkeypatch, *line, "--out", tmp_path / "whole") == 0
    whole = results(tmp_path / "whole", command)
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.[ps][nv]g")}
    place = mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
    said, seen = set(), []
    for pages in (0, 1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64, 128):
        out, filler = place / f"out-{pages}", place / "filler"
        capsys.readouterr()
        fill(filler, pages)
        code = run(monkeypatch, *line, "--out", out)
        error = capsys.readouterr().err
        there = results(out, command)
        assert all(content == whole[name] for name, content in there.items())
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
        seen.append(len(there))
        filler.unlink()
        if code == 0:
            break
        assert code == 2
        assert re.fullmatch(rf"prunecheck: (--out )?{out}\S* cannot be written: No space left on device\n", error)
        said.add(error.replace(str(out), ""))
        assert {path.name: path.read_bytes() for path in out.glob("*.[ps][nv]g")}.items() <= pictures.items()
        assert run(monkeypatch, *line, "--out", out) == 0
        assert results(out, command) == whole
    assert code == 0, "it never had enough room"
    assert seen[0] == 0
    assert len(said) > 3, "too few files were seen to fail"


def fill(filler: Path, pages: int) -> None:
    """Have a file take all room of its file system but for so many pages."""
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)):
                pass
        except OSError:
            file.truncate((file.tell() // PAGE - pages) * PAGE)


@pytest.mark.parametrize("command", ["scan", "plan"])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_directory_that_is_read_only(
    command: str,
    earlier: bool,
    folder: Path,
    mount: Mount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A directory on a read-only file system is one line, be it new or of an earlier run, which stays as it was."""
    (tmp_path / "all").mkdir()
    line = [command, folder / "source", "--text", folder / "text", *COMMANDS[command], "--out"]
    if earlier:
        assert run(monkeypatch, *line, tmp_path / "all" / "out") == 0
    capsys.readouterr()
    place = mount_read_only(mount, tmp_path / "all")
    before = results(place / "out", command)
    assert run(monkeypatch, *line, place / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("prunecheck: ")
    assert error.endswith(": Read-only file system\n")
    assert error.count("\n") == 1
    assert results(place / "out", command) == before
