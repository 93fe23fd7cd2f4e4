import os
import signal
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import pruning
from pruning import DestinationError
from pruning.writing import staging as staging_module
from pruning.writing.staging import staged_directory
from tests.unit.checkpoints import exactly, read_files, run_python

EXISTS = "{} exists: name another directory, or replace it with --overwrite"


def write(destination, content="new", *, overwrite=False, before_the_end=lambda: None):
    """Stage a directory of one file, and call `before_the_end` within the block."""
    with staged_directory(destination, overwrite=overwrite, sync=True) as staging:
        (staging / "file").write_text(content)
        before_the_end()


def raising(exception):
    """Return a function that raises."""

    def function():
        raise exception

    return function


@pytest.fixture
def old(tmp_path):
    """Return a directory that was there before."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("old")
    return tmp_path / "out"


def only(destination, content):
    """Check that a directory has this content, and that nothing lies beside it."""
    assert read_files(destination.parent) == {f"{destination.name}/file": content.encode()}
    assert list(destination.parent.iterdir()) == [destination]


@pytest.mark.parametrize("sync", [True, False])
def test_a_new_directory_appears_at_the_end(tmp_path, sync):
    """The destination is not there until the block ends, and then holds what was written; parents are made."""
    destination = tmp_path / "some" / "where"
    with staged_directory(destination, overwrite=False, sync=sync) as staging:
        (staging / "file").write_text("new")
        assert not destination.exists()
        assert staging.stat().st_dev == destination.parent.stat().st_dev
    only(destination, "new")


def test_an_existing_directory_is_refused(old):
    """A directory that exists is refused, with the remedy, and stays."""
    with pytest.raises(DestinationError, match=exactly(EXISTS.format(old))):
        write(old)
    only(old, "old")


def test_overwrite_replaces_at_the_end(old):
    """With overwrite the old directory stays whole until the new one is complete."""
    with staged_directory(old, overwrite=True, sync=True) as staging:
        (staging / "file").write_text("new")
        assert (old / "file").read_text() == "old"
    only(old, "new")


@pytest.mark.parametrize("overwrite", [True, False])
def test_files_and_links_are_refused(tmp_path, overwrite):
    """What is no directory itself is refused, with overwrite too: a file, a link, a link that leads nowhere."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    for name, problem in {
        "file": "a file: name a directory",
        "link": "a link: name the directory itself",
        "dangling": "a link: name the directory itself",
    }.items():
        with pytest.raises(DestinationError, match=exactly(f"{tmp_path}/{name} is {problem}")):
            write(tmp_path / name, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["", ".", "..", "/", "some/.."])
def test_names_that_name_nothing_are_refused(tmp_path, monkeypatch, name):
    """The working directory, its parent and the root are refused: nothing can be built beside them."""
    monkeypatch.chdir(tmp_path)
    message = f"{Path(name)} is not a name for a new directory: name one"
    with pytest.raises(DestinationError, match=exactly(message)):
        write(Path(name), overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
def test_an_exception_leaves_nothing(tmp_path, exception):
    """If the block raises, Ctrl-C included, nothing is left at the destination or beside it."""
    with pytest.raises(exception):
        write(tmp_path / "out", before_the_end=raising(exception))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_an_exception_keeps_the_old(old, exception):
    """If the block raises, what was to be replaced is as it was."""
    with pytest.raises(exception):
        write(old, overwrite=True, before_the_end=raising(exception))
    only(old, "old")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old(old, monkeypatch, failing):
    """Where names cannot be exchanged and a rename fails, the old directory is there, and whole."""
    monkeypatch.setattr(staging_module, "exchange", lambda first, second: False)
    rename, calls = Path.rename, []

    def fail_once(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise OSError("planted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="planted"):
        write(old, overwrite=True)
    monkeypatch.undo()
    only(old, "old")
    write(old, "newer", overwrite=True)
    only(old, "newer")


# Kills itself at the n-th call of those that change the file system, counted from the start of the staging.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from pruning.writing import staging as module
from pruning.writing.staging import staged_directory

left = int(sys.argv[2])
if sys.argv[3] == "renames":
    module.exchange = lambda first, second: False

def counted(function):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **kwargs)
    return call

module.exchange = counted(module.exchange)
for owner, name in [(Path, "mkdir"), (Path, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "open")]:
    setattr(owner, name, counted(getattr(owner, name)))
with staged_directory(Path(sys.argv[1]), overwrite=True, sync=False) as staging:
    (staging / "file").write_text("new")
    (staging / "other").write_text("new")
print(left)
"""


def run_killed(destination, calls, how):
    """Stage a directory in a process that is killed after so many calls; return whether it was."""
    process = run_python(KILLED, destination, calls, how, check=False)
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return process.returncode != 0


@pytest.mark.parametrize("how", ["one step", "renames"])
@pytest.mark.parametrize("was_there", [True, False])
def test_a_kill_at_any_moment_is_put_right_by_the_next_run(tmp_path, was_there, how):
    """Whenever the process is killed, the next run finds the old or the new, whole, and sweeps all else."""
    seen, calls = [], 0
    while True:
        destination = tmp_path / str(calls) / "out"
        destination.parent.mkdir()
        if was_there:
            destination.mkdir()
            (destination / "file").write_text("old")
        killed = run_killed(destination, calls, how)
        seen.append((destination / "file").read_text() if destination.exists() else "absent")
        with pytest.raises(RuntimeError):  # a next run that fails, so that only its putting right shows
            write(destination, overwrite=True, before_the_end=raising(RuntimeError))
        if seen[-1] == "new":
            assert read_files(destination.parent) == {"out/file": b"new", "out/other": b"new"}
        else:
            assert read_files(destination.parent) == ({"out/file": b"old"} if was_there else {})
        assert os.listdir(destination.parent) == (["out"] if was_there or seen[-1] == "new" else [])
        if not killed:
            break
        calls += 1
    assert seen[0] == ("old" if was_there else "absent")
    assert seen[-1] == "new"
    assert ("absent" in seen) == (not was_there or how == "renames"), "no kill fell between the two renames"


def left_behind(destination, *names):
    """Make what a killed process left beside a destination: a folder of directories of these names."""
    folder = destination.with_name(f".{destination.name}.prunecheck.left")
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    return folder


def test_a_directory_made_after_a_kill_costs_nothing(tmp_path):
    """If a directory was made at the destination after a kill between the renames, neither it nor the old is lost."""
    destination = tmp_path / "out"
    folder = left_behind(destination, "old", "new")
    destination.mkdir()
    message = (
        f"{destination} was made while it was being replaced, and what was there before is {folder}/old: "
        "move one of the two elsewhere"
    )
    for overwrite in (True, False):
        with pytest.raises(DestinationError, match=exactly(message)):
            write(destination, overwrite=overwrite)
        assert (folder / "old" / "file").read_text() == "old"
    (folder / "old").rename(tmp_path / "elsewhere")
    write(destination, overwrite=True)
    assert read_files(tmp_path) == {"out/file": b"new", "elsewhere/file": b"old"}


@pytest.mark.parametrize("file", [".", "file"])
def test_a_directory_made_while_writing_is_kept(tmp_path, file):
    """If someone else makes a directory at the destination meanwhile, empty or not, it stays without overwrite."""
    destination = tmp_path / "out"

    def make():
        destination.mkdir()
        if file != ".":
            (destination / file).write_text("theirs")

    with pytest.raises(DestinationError, match=exactly(EXISTS.format(destination))):
        write(destination, before_the_end=make)
    assert os.listdir(tmp_path) == ["out"]
    assert read_files(tmp_path) == ({} if file == "." else {"out/file": b"theirs"})


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_link_made_while_writing_is_kept(tmp_path, overwrite):
    """If someone else makes a link or a file at the destination meanwhile, it is refused as it is at the start."""
    destination = tmp_path / "out"
    with pytest.raises(DestinationError, match=exactly(f"{destination} is a link: name the directory itself")):
        write(destination, overwrite=overwrite, before_the_end=lambda: destination.symlink_to("nowhere"))
    assert os.listdir(tmp_path) == ["out"]
    assert os.readlink(destination) == "nowhere"


def test_a_half_removed_old_directory_is_never_restored(tmp_path):
    """What was being removed at a kill is removed, not put back, though the destination is missing."""
    left_behind(tmp_path / "out", "old")
    with pytest.raises(RuntimeError):
        write(tmp_path / "out", overwrite=True, before_the_end=raising(RuntimeError))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_two_at_once(tmp_path, overwrite):
    """Of two that write at once each is whole: the second to end replaces the first, or is refused."""
    destination = tmp_path / "out"
    with ExitStack() as stack:
        if not overwrite:
            stack.enter_context(pytest.raises(DestinationError, match=exactly(EXISTS.format(destination))))
        with staged_directory(destination, overwrite=overwrite, sync=False) as staging:
            (staging / "file").write_text("first to begin")
            write(destination, "first to end", overwrite=overwrite)
            assert (staging / "file").read_text() == "first to begin"
    only(destination, "first to begin" if overwrite else "first to end")


def test_a_live_owner_in_another_process_is_never_swept(tmp_path):
    """What another process is writing stays; once that process is killed, it is swept."""
    code = (
        "import sys; from pathlib import Path; from pruning.writing.staging import staged_directory\n"
        "with staged_directory(Path(sys.argv[1]), overwrite=False, sync=False) as staging:\n"
        "    (staging / 'file').write_text('theirs'); print(staging, flush=True); sys.stdin.read()\n"
    )
    destination = tmp_path / "out"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(destination)],
        cwd=Path(pruning.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        theirs = Path(owner.stdout.readline().strip())
        write(destination)
        assert (theirs / "file").read_text() == "theirs"
        owner.kill()
    write(destination, overwrite=True)
    only(destination, "new")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_respected(tmp_path, umask):
    """The directory and its files get the permissions that any other new ones would."""
    before = os.umask(umask)
    try:
        write(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "out" / "file").stat().st_mode) == 0o666 & ~umask
