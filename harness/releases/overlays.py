"""Overlays: directories of packages that go before those of the running environment, which they leave as it is.

pip resolves a set against what is installed here, so an overlay holds only what is not here, or not in this release.
torch is never in one. Overlays lie in the cache, in `releases/overlays/`, each complete or absent; its name has the
packages with their exact versions, the Python and the torch. What a set of pinned packages came to in this environment
is noted in `releases/resolved/`, so that it needs no package index again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Final

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.errors import CannotRun
from harness.report.files import write_text
from harness.subject.untrusted_files import read_json_or_none
from harness.system.cache_directory import complete_or_absent
from harness.system.scratch import scratch_folder

from .dependencies import needed, require_supported, shared_as_constraints
from .package_set import is_pinned
from .pip_runs import run_pip

_LONGEST_NAME: Final = 200  # bytes; file systems take 255


@dataclass(frozen=True)
class Overlay:
    """The versions of the packages that an overlay holds; `path` is None where the environment has all of them."""

    packages: Mapping[str, str]
    path: Path | None


def overlay(requirements: Sequence[Requirement], directory: Path, step: Callable[[str], None]) -> Overlay:
    """Return the overlay for a set of packages, installed below `directory` if it is not there.

    `step` is called with what is being done. Raises CannotRun, in one line, if it cannot be made.
    """
    require_supported(requirements)
    try:
        packages = _resolved(requirements, directory / "resolved", step)
        if not packages:
            return Overlay({}, None)
        path = directory / "overlays" / _name(packages)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            step("installing")
            with FileLock(path.parent / "lock"):
                if not path.exists():  # asked again: the lock may have been held by its maker
                    _install(packages, path)
    except OSError as error:
        raise CannotRun(
            f"cannot keep packages in {directory}: {error.strerror or error}; "
            "set PRUNECHECK_CACHE to a directory with room"
        ) from None
    return Overlay(packages, path)


@cache
def environment_digest() -> str:
    """Return a digest of the running environment: Python, platform, and every package with its version."""
    packages = sorted({f"{each.name}=={each.version}" for each in distributions()})
    return _digest([sys.version, _platform(), *packages])


def _resolved(requirements: Sequence[Requirement], directory: Path, step: Callable[[str], None]) -> dict[str, str]:
    """Return which packages an overlay must hold, and their versions."""
    if not all(map(is_pinned, requirements)):
        return _resolve(requirements, step)
    note = directory / f"{_digest([environment_digest(), *sorted(map(str, requirements))])}.json"
    noted = read_json_or_none(note)
    if isinstance(noted, dict):
        return noted
    packages = _resolve(requirements, step)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(packages) + "\n")
    return packages


def _resolve(requirements: Sequence[Requirement], step: Callable[[str], None]) -> dict[str, str]:
    step("resolving")
    with scratch_folder() as scratch:
        constraints, report = scratch / "constraints.txt", scratch / "report.json"
        constraints.write_text("\n".join(shared_as_constraints()) + "\n", encoding="utf-8")
        # Without --target, for which pip would pass by what is installed.
        run_pip(
            "install", "--dry-run", "--report", str(report), "--constraint", str(constraints), *map(str, requirements)
        )  # fmt: skip
        items = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    metadata = {canonicalize_name(item["name"]): item for item in items}
    reached = needed(requirements, {name: item.get("requires_dist", ()) for name, item in metadata.items()})
    return {name: item["version"] for name, item in sorted(metadata.items()) if name in reached}


def _install(packages: Mapping[str, str], path: Path) -> None:
    pinned = [f"{name}=={release}" for name, release in packages.items()]
    with complete_or_absent(path) as partial:
        # Not compiled: most of it is never imported, and what is, compiles itself once.
        run_pip("install", "--no-deps", "--no-compile", "--target", str(partial), *pinned)


def _name(packages: Mapping[str, str]) -> str:
    parts = [f"{name}-{release}" for name, release in packages.items()]
    name = "_".join((*parts, f"torch-{version('torch')}", _platform()))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 17]}_{_digest([name])[:16]}"


def _platform() -> str:
    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
