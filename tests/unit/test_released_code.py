"""The table of released code: which files releases of prunecheck have put into checkpoints.

With PRUNECHECK_REWRITE=1 set, `pytest tests/unit/test_released_code.py` writes the present files of `pruning/remote/`
into the table, as those of the version that `pruning/__init__.py` names, in place of what the table had of it.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pruning
from pruning.families import FAMILIES
from pruning.released_code import TABLE_FILE, ReleasedFile, released_code, released_file, released_files

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "pruning" / TABLE_FILE
RELEASED = ROOT / "fixtures" / "released"
FAMILY = FAMILIES[0]
Table = dict[str, dict[str, dict[str, Any]]]


def checksum(content: bytes) -> str:
    """Return the sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def present_files() -> dict[str, bytes]:
    """Return every file that the present version puts into checkpoints of whatever family."""
    return {name: content for family in FAMILIES for name, content in family.code_files().items()}


def renewed(table: Table, version: str, files: dict[str, bytes]) -> Table:
    """Return the table with these files as those of a version, and with no others of it."""
    new: Table = {}
    for name in sorted({*table, *files}):
        entries = {key: dict(entry) for key, entry in table.get(name, {}).items()}
        for entry in entries.values():
            entry["releases"] = [release for release in entry["releases"] if release != version]
        if name in files:
            entries.setdefault(checksum(files[name]), {"releases": []})["releases"].append(version)
        if entries := {key: entry for key, entry in entries.items() if entry["releases"]}:
            new[name] = entries
    return new


def test_the_table_has_the_present_files() -> None:
    """The table has the present files as those of this version; what to call where it has not stands above."""
    table: Table = json.loads(TABLE.read_text(encoding="utf-8"))
    should = renewed(table, pruning.__version__, present_files())
    if os.environ.get("PRUNECHECK_REWRITE"):
        TABLE.write_text(json.dumps(should, indent=2) + "\n", encoding="utf-8")
        return
    assert table == should, "files of pruning/remote/ changed: run this test with PRUNECHECK_REWRITE=1"


def test_the_table_has_every_release() -> None:
    """Each earlier release is in the table with exactly the files that fixtures/released/ keeps of it."""
    earlier: dict[str, dict[str, str]] = {}
    for name, entries in released_files().items():
        for key, file in entries.items():
            for release in set(file.releases) - {pruning.__version__}:
                earlier.setdefault(release, {})[name] = key
    kept = {
        folder.name: {path.name: checksum(path.read_bytes()) for path in folder.glob("*.py")}
        for folder in RELEASED.iterdir()
    }
    assert earlier == kept


def test_renewing_replaces_a_version_s_own_files_alone() -> None:
    """A changed file takes the place of the version's earlier one; files of other releases stay, with what is known."""
    old = {"releases": ["1"], "wrong_from": "transformers 9"}
    table: Table = {"a.py": {checksum(b"a1"): old, checksum(b"a2"): {"releases": ["2"]}}, "b.py": {}}
    table["c.py"] = {checksum(b"c"): {"releases": ["1", "2"]}}
    assert renewed(table, "2", {"a.py": b"a3", "b.py": b"b", "c.py": b"c"}) == {
        "a.py": {checksum(b"a1"): old, checksum(b"a3"): {"releases": ["2"]}},
        "b.py": {checksum(b"b"): {"releases": ["2"]}},
        "c.py": {checksum(b"c"): {"releases": ["1", "2"]}},
    }
    assert renewed(table, "2", {}) == {"a.py": {checksum(b"a1"): old}, "c.py": {checksum(b"c"): {"releases": ["1"]}}}


def carry(root: Path, files: dict[str, bytes]) -> Path:
    """Write Python files into a directory that is not there yet."""
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_a_release_is_known_by_its_files(tmp_path: Path) -> None:
    """Code of 0.1.0 and of this version is known, with all that it imports, and the one is known to be wrong."""
    old = shutil.copytree(RELEASED / "0.1.0", tmp_path / "old")
    auto_map = {name: FAMILY.auto_map[name] for name in ("AutoConfig", "AutoModelForCausalLM")}
    found = released_code(old, auto_map)
    assert found is not None
    assert sorted(found) == sorted(path.name for path in old.iterdir())
    assert found["modeling_pruned_qwen3.py"] == ReleasedFile(("0.1.0",), "transformers 5.24.0")
    present = released_code(carry(tmp_path / "present", FAMILY.code_files()), FAMILY.auto_map)
    assert present is not None
    assert sorted(present) == sorted(FAMILY.code_names)
    assert all(pruning.__version__ in file.releases and file.wrong_from is None for file in present.values())


def test_a_new_file_makes_no_stranger_of_an_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a later release has more files, or a file that other families share, code of 0.1.0 is still known."""
    table = {name: dict(entries) for name, entries in released_files().items()}
    table["another_shared_file.py"] = {checksum(b""): ReleasedFile(("9.0.0",))}
    table["hollow_modules.py"][checksum(b"")] = ReleasedFile(("9.0.0",))
    monkeypatch.setattr("pruning.released_code.released_files", lambda: table)
    old = shutil.copytree(RELEASED / "0.1.0", tmp_path / "old")
    assert released_code(old, FAMILY.auto_map) is not None


@pytest.mark.parametrize("change", ["edited", "missing", "imported", "renamed", "elsewhere", "listed"])
def test_strangers_are_strangers(change: str, tmp_path: Path) -> None:
    """One file that is of no release, is not there, or lies elsewhere, and the code is not a release's."""
    root = carry(tmp_path / "code", FAMILY.code_files())
    auto_map: dict[str, Any] = dict(FAMILY.auto_map)
    if change == "edited":
        (root / "modeling_pruned_qwen3.py").write_bytes(FAMILY.code_files()["modeling_pruned_qwen3.py"] + b"\n")
    if change == "missing":
        (root / "configuration_pruned_qwen3.py").unlink()
    if change == "imported":  # not named by auto_map, but by what it leads to
        (root / "per_layer_skip.py").write_text("raise SystemExit\n")
    if change == "renamed":
        (root / "modeling_pruned_qwen3.py").rename(root / "modeling.py")
        auto_map = {
            name: reference.replace("modeling_pruned_qwen3", "modeling") for name, reference in auto_map.items()
        }
    if change == "elsewhere":
        auto_map["AutoModel"] = f"{root}--modeling_pruned_qwen3.PrunedQwen3Model"
    if change == "listed":
        auto_map["AutoTokenizer"] = ["tokenization.Theirs", None]
    assert released_code(root, auto_map) is None


def test_what_lies_beside_is_not_asked(tmp_path: Path) -> None:
    """A file that nothing leads to makes no difference, not even one that is no Python."""
    root = carry(tmp_path / "code", {**FAMILY.code_files(), "beside.py": b"("})
    assert released_code(root, FAMILY.auto_map) is not None
    assert released_file(root / "beside.py") is None
    assert released_code(root, {}) is None
