"""Which Python files the releases of prunecheck put into checkpoints, each known by its name and its bytes.

By file, not by whole releases: a family or a shared file that is added later changes nothing about the files that
checkpoints carry already. `released_code.json` maps name -> sha256 -> what is known of that file.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

TABLE_FILE = "released_code.json"


@dataclass(frozen=True)
class ReleasedFile:
    """A file of releases of prunecheck: the versions that have it, in order, byte for byte.

    `wrong_from` says since which release of what it is known to be wrong, as in "transformers 5.24.0"; None if it is
    not known to be wrong anywhere.
    """

    releases: tuple[str, ...]
    wrong_from: str | None = None


@cache
def released_files() -> Mapping[str, Mapping[str, ReleasedFile]]:
    """Return name -> sha256 in hex -> file, of every file that a release has put into checkpoints."""
    content = json.loads(resources.files("pruning").joinpath(TABLE_FILE).read_text(encoding="utf-8"))
    return {
        name: {
            checksum: ReleasedFile(tuple(entry["releases"]), entry.get("wrong_from"))
            for checksum, entry in entries.items()
        }
        for name, entries in content.items()
    }


def released_file(path: Path) -> ReleasedFile | None:
    """Return what is known of a file on the disk; None if no release has a file of this name with these bytes."""
    entries = released_files().get(path.name)
    if entries is None or not path.is_file():
        return None
    return entries.get(hashlib.sha256(path.read_bytes()).hexdigest())


def released_code(root: Path, auto_map: Mapping[str, Any]) -> dict[str, ReleasedFile] | None:
    """Return the released files, by name, that run when a class is loaded that `auto_map` names; None if others do.

    Those are the files that `auto_map` leads to, and what they import from beside them. No file runs, and one that is
    of no release is not even parsed.
    """
    # A reference is `module.Class`; `repository--module.Class` is no file of ours.
    waiting = [f"{str(reference).rpartition('.')[0]}.py" for reference in auto_map.values()]
    found: dict[str, ReleasedFile] = {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        file = released_file(root / name) if name in released_files() else None
        if file is None:
            return None
        found[name] = file
        waiting += _imported_from_beside(root / name)
    return found or None


def version_of(files: Collection[ReleasedFile]) -> str:
    """Return the version of prunecheck that has all of these files, the last if several have, or all that have any."""
    releases = [file.releases for file in files]
    whole = [release for release in releases[0] if all(release in others for others in releases)]
    return whole[-1] if whole else " and ".join(sorted({release for each in releases for release in each}))


def _imported_from_beside(path: Path) -> list[str]:
    """Return the names of the files that a file of ours imports: `from .module import name` is all that they use."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return [f"{node.module}.py" for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
