"""The Python files that a checkpoint carries: whose they are, and whether they may run. None of them runs here."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from pruning.released_code import ReleasedFile, released_code, version_of


@dataclass(frozen=True)
class CheckpointCode:
    """`auto_map` as config.json has it; `checksums` the sha256 of each Python file by its path.

    `released_files` are those, by name, that a load runs, if each is a file of a release of prunecheck, byte for byte;
    None if others run.
    """

    auto_map: Mapping[str, str]
    checksums: Mapping[str, str]
    released_files: Mapping[str, ReleasedFile] | None

    @property
    def is_own(self) -> bool:
        """Whether loading the model would run code that is not transformers' own."""
        return bool(self.auto_map)

    @property
    def released(self) -> str | None:
        """The version of prunecheck whose files run, several if they are of no single one; None if others run."""
        return version_of(list(self.released_files.values())) if self.released_files else None

    @property
    def wrong_from(self) -> str | None:
        """Since which release of what these files are known to be wrong, such as "transformers 5.24.0"; or None."""
        files = (self.released_files or {}).values()
        return next((file.wrong_from for file in files if file.wrong_from is not None), None)


def read_code(root: Path, config: Mapping[str, Any]) -> CheckpointCode:
    """Read what code a checkpoint directory carries, also in folders: `custom_generate/generate.py` runs, for one."""
    auto_map = config.get("auto_map")
    auto_map = {name: str(value) for name, value in auto_map.items()} if isinstance(auto_map, dict) else {}
    checksums = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.py"))
        if path.is_file()
    }
    return CheckpointCode(auto_map=auto_map, checksums=checksums, released_files=released_code(root, auto_map))


def differences_from_manifest(code: CheckpointCode, manifest: Mapping[str, Any] | None) -> list[str]:
    """Say which Python files are not those whose checksums pruning.json has, and which it does not name.

    Those of a release are ours, whatever it says of them; what lies beside them is not.
    """
    named = (manifest or {}).get("code")
    if not isinstance(named, dict):
        return []
    ours = code.released_files or {}
    others = {name: checksum for name, checksum in sorted(code.checksums.items()) if name not in ours}
    changed = [name for name, checksum in others.items() if named.get(name, checksum) != checksum]
    added = [name for name in others if name not in named]
    found = []
    if changed:
        found.append(f"{', '.join(changed)} is not the file that pruning.json names: it was changed")
    if added:
        are, they = ("is", "it was") if len(added) == 1 else ("are", "they were")
        found.append(f"{', '.join(added)} {are} not among the files that pruning.json names: {they} added")
    return found


def cannot_be_imported() -> str | None:
    """Say why no checkpoint's code could be imported here, None if it could: transformers copies it to a cache first.

    (transformers 4.57.6 and 5.23.0, `dynamic_module_utils.py`: below the home directory, unless HF_HOME is another.)
    """
    from transformers import dynamic_module_utils

    cache = Path(vars(dynamic_module_utils)["HF_MODULES_CACHE"])
    try:
        cache.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(cache, os.W_OK | os.X_OK) else "no leave to write there"
    except OSError as error:
        reason = error.strerror
    return reason and f"transformers cannot keep modeling code in {cache}, {reason}: set HF_HOME to another directory"


def stale_code(model_class: type, root: Path) -> str | None:
    """Return the name of a file of `root` that the class in memory, or what it imports, was not made from, else None.

    Functions and methods are compared as compiled code; a class that is not of a checkpoint's code is passed by.
    """
    package = model_class.__module__.rpartition(".")[0]
    if not package.startswith("transformers_modules"):
        return None
    for path in sorted(root.glob("*.py")):
        module = sys.modules.get(f"{package}.{path.stem}")
        if module is None:
            continue
        try:
            stored = _functions_of(compile(path.read_bytes(), path.name, "exec", dont_inherit=True))
        except (SyntaxError, ValueError):
            return path.name
        # What a decorator put in a function's place comes from another file.
        loaded = {
            function.__qualname__: function.__code__
            for holder in (module, *(value for value in vars(module).values() if isinstance(value, type)))
            for function in vars(holder).values()
            if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__
        }
        for name, code in loaded.items():
            if name in stored and _content(code) not in map(_content, stored[name]):
                return path.name
    return None


def _content(code: CodeType) -> tuple[object, ...]:
    constants = (each for each in code.co_consts if not isinstance(each, CodeType))
    # Sets have no order: their text depends on the process.
    return (
        code.co_code,
        code.co_names,
        tuple(repr(sorted(map(repr, each))) if isinstance(each, frozenset) else repr(each) for each in constants),
    )


def _functions_of(code: CodeType) -> dict[str, list[CodeType]]:
    """Return the functions that compiled code defines, nested ones too, by qualified name, which several may share."""
    found: dict[str, list[CodeType]] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.setdefault(constant.co_qualname, []).append(constant)
            for name, nested in _functions_of(constant).items():
                found.setdefault(name, []).extend(nested)
    return found
