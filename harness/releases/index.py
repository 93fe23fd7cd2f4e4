"""Which releases of a package there are, as the user's package index has them."""

from __future__ import annotations

import re

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from harness.errors import CannotRun

from .package_set import SHARED
from .pip_runs import run_pip


def stable_releases(package: str) -> list[Version]:
    """Return the stable releases that run on this Python, the oldest first.

    Raises CannotRun for a name that is not a package's, for SHARED packages, and where the index has none.
    """
    try:
        name = canonicalize_name(package, validate=True)
    except InvalidName:
        raise CannotRun(f"{package!r} is not the name of a package: write, for one, transformers") from None
    if name in SHARED:
        raise CannotRun(f"{name} is shared with the running environment: run prunecheck in one that has it")
    # (pip 23.2.1 and 26.3, `commands/index.py`.)
    found = re.search(r"^Available versions: (.*)$", run_pip("index", "versions", name), flags=re.MULTILINE)
    versions = [] if found is None else [Version(text.strip()) for text in found[1].split(",")]
    if stable := sorted(version for version in versions if not version.is_prerelease):
        return stable
    raise CannotRun(f"the package index has no stable release of {name}")


def between(releases: list[Version], package: str, good: str, bad: str) -> list[Version]:
    """Return the releases from `good` to `bad`, both included; "latest" is the newest of all.

    Raises CannotRun for what is not one of them, and where `bad` is not newer than `good`.
    """
    first, last = (_one_of(releases, package, option, text) for option, text in (("--good", good), ("--bad", bad)))
    if first >= last:
        raise CannotRun(f"--bad {last} is not newer than --good {first}: name an older one as good")
    return releases[releases.index(first) : releases.index(last) + 1]


def _one_of(releases: list[Version], package: str, option: str, text: str) -> Version:
    if text == "latest":
        return releases[-1]
    try:
        version = Version(text)
    except InvalidVersion:
        raise CannotRun(f"{option} {text} is not a version: write, for one, {releases[-1]}, or latest") from None
    if version not in releases:
        near = sorted(releases, key=lambda release: (abs(_number(release) - _number(version)), release))[:3]
        names = ", ".join(map(str, sorted(near)))
        raise CannotRun(f"{option} {text} is not a stable release of {package} that the index has: near it are {names}")
    return version


def _number(version: Version) -> float:
    """Return a number that grows with a version, to tell which are near."""
    return version.epoch * 1e12 + version.major * 1e8 + version.minor * 1e4 + version.micro
