"""File systems that are full, small, read-only or without a home: one line, nothing left, nothing lost."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import pruning
from harness.errors import CannotRun
from harness.report.files import write_text
from pruning import DestinationError, PrunePlan, prune_checkpoint
from tests.file_systems import Mount, mount_read_only
from tests.harness.command_line import run
from tests.unit.checkpoints import exactly, keys_of_model, read_files, run_python, write_checkpoint, write_weights

PLAN = PrunePlan(mlp=(0,))
SMALL = 2 * 2**20


@pytest.fixture
def full(mount: Mount) -> Path:
    """Return the directory of a file system that holds 2 MB."""
    return mount("-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a checkpoint of 8 MB, of which pruning leaves too much for 2."""
    root = write_checkpoint(tmp_path / "source")
    write_weights(root, {key: ("BF16", [64, 2048]) for key in keys_of_model(3)})
    return root


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_disk_that_is_full(full: Path, large: Path, tmp_path: Path, checksum: bool, was_there: bool) -> None:
    """On a disk that is full the error says how many bytes are needed; nothing is left, and the old is as it was."""
    if was_there:
        prune_checkpoint(write_checkpoint(tmp_path / "tiny"), full / "out", PLAN)
    before = read_files(full)
    with pytest.raises(DestinationError, match=r"^.*/out needs \d{7} bytes, for which no space is left: free some, or"):
        prune_checkpoint(large, full / "out", PLAN, overwrite=was_there, checksum=checksum)
    assert read_files(full) == before
    assert os.listdir(full) == (["out"] if was_there else [])


@pytest.mark.parametrize("checksum", [True, False])
def test_from_one_file_system_to_another(full: Path, tmp_path: Path, checksum: bool) -> None:
    """Where the destination lies on another file system, the checkpoint is the same."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    prune_checkpoint(source, full / "out", PLAN, checksum=checksum)
    assert read_files(full / "out") == read_files(tmp_path / "out")


def test_a_report_on_a_disk_that_is_full(full: Path) -> None:
    """A report that does not fit is one line; the one that was there stays, and no half of the new one."""
    path = full / "report.json"
    write_text(path, "old")
    with pytest.raises(CannotRun, match=exactly(f"{path} cannot be written: No space left on device")):
        write_text(path, "x" * 2 * SMALL)
    assert read_files(full) == {"report.json": b"old"}


def test_a_report_is_written_to_what_is_no_file(tmp_path: Path) -> None:
    """A report goes into a device or through a link, which stay what they are."""
    write_text(Path("/dev/null"), "x")
    assert not Path("/dev/null").is_file()
    (tmp_path / "link").symlink_to("file")
    for text in ("first", "second"):
        write_text(tmp_path / "link", text)
    assert (tmp_path / "link").is_symlink()
    assert read_files(tmp_path) == {"file": b"second", "link": b"second"}


LIMITED = """
import resource, sys
from harness.cli.main import main
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
sys.argv = ["prunecheck", "prune", *sys.argv[3:]]
main()
"""


@pytest.mark.parametrize("options", [[], ["--no-checksum"]], ids=["checksum", "none"])
def test_a_limit_of_file_sizes(large: Path, tmp_path: Path, options: list[str]) -> None:
    """Where no file may grow beyond a limit, that is the error, in one line, and nothing is left."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    process = run_python(LIMITED, "RLIMIT_FSIZE", 2**20, large, tmp_path / "out", "--mlp", "0", *options, check=False)
    assert process.stderr == f"prunecheck: {tmp_path}/out cannot be written: File too large\n"
    assert process.returncode == 2
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("options", [[], ["--no-checksum"]], ids=["checksum", "none"])
def test_a_limit_of_open_files(tmp_path: Path, options: list[str]) -> None:
    """Where a process may have few files open, any number of shards is pruned."""
    source = write_checkpoint(tmp_path / "source", layers=12, shards=67)
    most = 16 + 2 * len(os.sched_getaffinity(0))  # of which each thread opens two
    run_python(LIMITED, "RLIMIT_NOFILE", most, source, tmp_path / "out", "--mlp", "0", *options)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > most


def test_a_directory_that_is_read_only(mount: Mount, tmp_path: Path) -> None:
    """A destination on a read-only file system is refused in one line; a source on one is read."""
    source = write_checkpoint(tmp_path / "all" / "source")
    read_only = mount_read_only(mount, tmp_path / "all")
    with pytest.raises(DestinationError, match=r"/out cannot be written: Read-only file system$"):
        prune_checkpoint(source, read_only / "out", PLAN)
    with pytest.raises(CannotRun, match=r"/report\.json cannot be written: Read-only file system$"):
        write_text(read_only / "report.json", "x")
    prune_checkpoint(read_only / "source", tmp_path / "out", PLAN)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["source"]


def test_no_home(tmp_path: Path) -> None:
    """`prune` needs no home directory, be it unset, missing or a place where nothing can be written."""
    source = write_checkpoint(tmp_path / "source")
    for number, home in enumerate(["env -u HOME", f"env HOME={tmp_path}/nowhere", "env HOME=/proc"]):
        code = "import sys\nfrom harness.cli.main import main\nsys.argv[0] = 'prunecheck'\nmain()"
        command = [
            *home.split(),
            sys.executable,
            "-c",
            code,
            "prune",
            str(source),
            str(tmp_path / str(number)),
            "--mlp",
            "0",
        ]
        assert subprocess.run(command, cwd=Path(pruning.__file__).parents[1], check=False).returncode == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_home_that_nobody_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that begins with the home of a user who is not there is refused in one line."""
    source = write_checkpoint(tmp_path / "source")
    nobody = "~no-such-user"
    for command in (
        ["prune", source, f"{nobody}/out", "--mlp", "0"],
        ["prune", f"{nobody}/source", tmp_path / "out", "--mlp", "0"],
        ["check", f"{nobody}/out"],
        ["check", source, "--base", f"{nobody}/base"],
    ):
        assert run(monkeypatch, *command) == 2
        error = capsys.readouterr().err
        assert error.startswith(("prunecheck: ~no-such-user/", "prunecheck: the base ~no-such-user/"))
        assert error.endswith("Could not determine home directory.\n")
