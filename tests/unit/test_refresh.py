"""`refresh`: the present code in the place of what a checkpoint carries, all else the very same files."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import pruning
import pruning.refresh
from pruning import CheckpointError, DestinationError, PrunePlan, audit_checkpoint, prune_checkpoint, refresh_checkpoint
from pruning.families import FAMILIES
from pruning.released_code import ReleasedFile, released_files
from tests.file_systems import Mount, mount_read_only
from tests.harness.command_line import run
from tests.unit.carrying import carry_old_code
from tests.unit.checkpoints import exactly, read_files, write_checkpoint

pytestmark = pytest.mark.newest

PLAN = PrunePlan(self_attn=(0,), mlp=(1,))
CODE = FAMILIES[0].code_names
HOLLOW = "hollow_modules.py"


@pytest.fixture
def present(tmp_path: Path) -> Path:
    """A checkpoint in two shards as it is pruned now."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    (source / "tokenizer.json").write_text("{}")
    prune_checkpoint(source, tmp_path / "present", PLAN)
    return tmp_path / "present"


@pytest.fixture
def old(present: Path) -> Path:
    """The same checkpoint as 0.1.0 would have written it."""
    prune_checkpoint(present, present.with_name("old"), PrunePlan())
    return carry_old_code(present.with_name("old"))


def untouched(root: Path, before: dict[str, bytes]) -> bool:
    """Whether a directory holds what it held, and nothing lies beside it that begins with a dot."""
    return read_files(root) == before and not [name for name in os.listdir(root.parent) if name.startswith(".")]


def test_an_old_checkpoint_becomes_a_present_one(old: Path, present: Path) -> None:
    """Afterwards every file is what pruning writes now, and the checkpoint fits its manifest byte for byte."""
    result = refresh_checkpoint(old)
    assert read_files(old) == read_files(present)
    audit_checkpoint(old)
    assert (result.path, result.before, result.removed) == (old, "0.1.0", ())
    assert sorted(result.written) == sorted([*CODE, "config.json", "pruning.json"])
    assert json.loads((old / "pruning.json").read_text())["tool"]["version"] == pruning.__version__
    assert sorted(path.name for path in old.parent.iterdir()) == ["old", "present", "source"]


def test_all_else_stays_the_very_same_files(old: Path) -> None:
    """Weights, tokenizer, and whatever else lies there, folders and links too, keep their inodes and their modes."""
    (old / "notes").mkdir(mode=0o750)
    (old / "notes" / "mine.txt").write_text("mine")
    (old / "notes" / "mine.py").write_text("mine")
    (old / "link").symlink_to("nowhere")
    old.chmod(0o750)
    inodes = {path.relative_to(old): path.lstat().st_ino for path in old.rglob("*") if not path.is_dir()}
    result = refresh_checkpoint(old)
    new = {path.relative_to(old): path.lstat().st_ino for path in old.rglob("*") if not path.is_dir()}
    same = {name for name, inode in new.items() if inodes.get(name) == inode}
    assert {str(name) for name in new.keys() - same} == set(result.written)
    assert inodes.keys() <= new.keys()
    assert oct(old.stat().st_mode & 0o777) == oct((old / "notes").stat().st_mode & 0o777) == oct(0o750)
    assert os.readlink(old / "link") == "nowhere"


def test_nothing_to_do(present: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the present code is there, nothing is written, which is said, and the exit code is 0."""
    inode = present.stat().st_ino
    assert refresh_checkpoint(present).written == ()
    assert run(monkeypatch, "refresh", present) == 0
    already = f"{present}: it carries the code of prunecheck {pruning.__version__} already, there is nothing to do\n"
    assert capsys.readouterr().out == already
    assert present.stat().st_ino == inode


def test_the_command(old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`refresh` names what was there and what was written, and a second call has nothing to do."""
    assert run(monkeypatch, "refresh", old) == 0
    lines = capsys.readouterr().out.splitlines()
    version = pruning.__version__
    assert lines[0] == f"{old}: the code of prunecheck {version} is in the place of that of prunecheck 0.1.0"
    assert lines[1] == f"written: {', '.join([*CODE, 'config.json', 'pruning.json'])}"
    assert run(monkeypatch, "refresh", old) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_files_of_earlier_releases_go(old: Path, present: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an earlier release had, and this one has not, is removed and named."""
    (old / "earlier.py").write_text("earlier = True\n")
    checksum = hashlib.sha256((old / "earlier.py").read_bytes()).hexdigest()
    table = {**released_files(), "earlier.py": {checksum: ReleasedFile(("0.1.0",))}}
    for module in ("released_code", "refresh"):
        monkeypatch.setattr(f"pruning.{module}.released_files", lambda: table)
    assert refresh_checkpoint(old).removed == ("earlier.py",)
    assert read_files(old) == read_files(present)


def test_a_checkpoint_without_a_manifest(old: Path, present: Path) -> None:
    """What `save_pretrained` wrote has no manifest: code and auto_map are renewed, and none is made."""
    (old / "pruning.json").unlink()
    assert "pruning.json" not in refresh_checkpoint(old).written
    expected = read_files(present)
    del expected["pruning.json"]
    assert read_files(old) == expected


def test_a_lost_auto_map_comes_back(present: Path) -> None:
    """A config that names no code gets the present auto_map; the code itself, which is there, is not written."""
    before = read_files(present)
    config = json.loads((present / "config.json").read_text())
    del config["auto_map"]
    (present / "config.json").write_text(json.dumps(config))
    assert refresh_checkpoint(present).written == ("config.json",)
    assert json.loads((present / "config.json").read_text()) == json.loads(before["config.json"])


def change_by_hand(root: Path) -> str:
    """Edit a file of ours."""
    with (root / HOLLOW).open("a") as file:
        file.write("# mine\n")
    return HOLLOW


def lead_elsewhere(root: Path) -> str:
    """Have auto_map lead to a file of one's own."""
    (root / "mine.py").write_text("from .modeling_pruned_qwen3 import PrunedQwen3ForCausalLM\n")
    config = json.loads((root / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "mine.PrunedQwen3ForCausalLM"
    (root / "config.json").write_text(json.dumps(config))
    return "mine.py"


@pytest.mark.parametrize("change", [change_by_hand, lead_elsewhere])
def test_code_of_no_release(change: Callable[[Path], str], old: Path, present: Path) -> None:
    """Code that was changed by hand is named and refused, and replaced with force; a file of one's own stays there."""
    name = change(old)
    before = read_files(old)
    message = (
        f"{old} carries code of no release that prunecheck {pruning.__version__} knows: '{name}'; "
        "keep what was changed there elsewhere, and replace it with --force"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        refresh_checkpoint(old)
    assert untouched(old, before)
    result = refresh_checkpoint(old, force=True)
    assert result.before is None
    assert read_files(old).items() >= {**read_files(present), "config.json": read_files(old)["config.json"]}.items()
    assert json.loads((old / "config.json").read_text()) == json.loads((present / "config.json").read_text())
    assert (old / "mine.py").exists() == (name == "mine.py")


def test_what_is_not_a_pruned_checkpoint(tmp_path: Path, present: Path) -> None:
    """An unpruned checkpoint, a file, a hub id, a name of nothing, and the hub cache's copy are one line each."""
    source = tmp_path / "source"
    model_type = "model_type is 'qwen3', but should be 'pruned_qwen3'"
    snapshot = tmp_path / "models--somebody--something" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    present.rename(snapshot)
    file = snapshot / "config.json"
    for path, message in {
        source: f"{source} is not a pruned checkpoint of prunecheck's: {model_type}",
        file: f"{file} is not a directory: a hub id has to be downloaded to one first",
        "Qwen/Qwen3-0.6B": "Qwen/Qwen3-0.6B is not a directory: a hub id has to be downloaded to one first",
        "x" * 999: f"{'x' * 999} cannot be read: File name too long",
        "~nobody-here/x": "~nobody-here/x cannot be read: Could not determine home directory.",
        snapshot: f"{snapshot} is the hub cache's copy of a commit: copy it to a directory of your own first",
    }.items():
        before = read_files(tmp_path)
        with pytest.raises(CheckpointError, match=exactly(message)):
            refresh_checkpoint(path)
        assert read_files(tmp_path) == before


def test_a_checkpoint_that_is_broken(old: Path) -> None:
    """What does not fit its own manifest is refused, and stays as it was."""
    manifest = json.loads((old / "pruning.json").read_text())
    manifest["kept"].popitem()
    (old / "pruning.json").write_text(json.dumps(manifest))
    before = read_files(old)
    with pytest.raises(CheckpointError, match=r"is stored, but pruning\.json does not name it$"):
        refresh_checkpoint(old)
    assert untouched(old, before)


def test_a_directory_without_leave_to_write(old: Path) -> None:
    """A directory whose mode leaves nobody to write is refused, also to root."""
    before = read_files(old)
    old.chmod(0o555)
    message = f"{old} cannot be written: make it writable, or copy the checkpoint elsewhere"
    with pytest.raises(DestinationError, match=exactly(message)):
        refresh_checkpoint(old)
    old.chmod(0o755)
    assert untouched(old, before)


def test_a_file_system_that_is_read_only(mount: Mount, old: Path) -> None:
    """So is one on a read-only file system."""
    before = read_files(old)
    place = mount_read_only(mount, old.parent) / old.name
    with pytest.raises(
        DestinationError, match=r"cannot be written: make it writable, or copy the checkpoint elsewhere$"
    ):
        refresh_checkpoint(place)
    assert untouched(old, before)


def test_a_file_system_without_hard_links(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be linked they are not copied: that is one line, and the checkpoint is as it was."""

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    before = read_files(old)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DestinationError, match=r"^\S+ cannot be linked: Operation not permitted; copy the checkpoint,"):
        refresh_checkpoint(old)
    assert untouched(old, before)


def test_where_names_cannot_be_exchanged(old: Path, present: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exchange of names there are two renames: what a kill between them leaves, the next call puts back."""
    monkeypatch.setattr("pruning.writing.staging.exchange", lambda first, second: False)
    before = read_files(old)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as planted:
        planted.setattr(Path, "rename", killed)
        # What a killed process does not do.
        planted.setattr("pruning.writing.staging._clear", lambda folder, destination: None)
        with pytest.raises(KeyboardInterrupt):
            refresh_checkpoint(old)
    assert not old.exists()
    (left,) = old.parent.glob(".old.prunecheck.*")
    assert read_files(left / "old") == before
    refresh_checkpoint(old)
    assert read_files(old) == read_files(present)
    assert sorted(path.name for path in old.parent.iterdir()) == ["old", "present", "source"]


def test_replaced_meanwhile(old: Path, present: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that another command replaces after it was read is left as that command wrote it."""
    other = read_files(present)
    require_writable = pruning.refresh._require_writable

    def replaced_first(root: Path) -> None:
        require_writable(root)
        prune_checkpoint(old.with_name("source"), old, PLAN, overwrite=True)

    monkeypatch.setattr("pruning.refresh._require_writable", replaced_first)
    with pytest.raises(DestinationError, match=exactly(f"{old} was replaced while it was read: call refresh again")):
        refresh_checkpoint(old)
    assert untouched(old, other)


def test_through_a_link(old: Path, present: Path, tmp_path: Path) -> None:
    """A link to the checkpoint stays a link, and what it leads to is refreshed."""
    (tmp_path / "link").symlink_to("old")
    refresh_checkpoint(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "old"
    assert read_files(old) == read_files(present)


def test_pruned_further_and_then_refreshed(old: Path, present: Path, tmp_path: Path) -> None:
    """Pruning an old checkpoint further gives it the present code: there is nothing left to refresh."""
    prune_checkpoint(old, tmp_path / "further", PrunePlan(mlp=(2,)))
    assert refresh_checkpoint(tmp_path / "further").written == ()
