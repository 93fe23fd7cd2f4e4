"""One folder for each minor release of transformers, to put before the running environment's packages.

It holds that release and what it needs in another version than the one installed here; torch is shared.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PACKAGE = "transformers"


def minor_releases(oldest: Version) -> list[Version]:
    """Return the newest release of each minor version from `oldest` on that the package index has, oldest first.

    Raises subprocess.CalledProcessError where pip gets no answer.
    """
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", PACKAGE], check=True, capture_output=True, text=True
    )
    listed = re.search(r"^Available versions: (.*)$", answer.stdout, flags=re.MULTILINE)
    releases = sorted(Version(text.strip()) for text in (listed[1].split(",") if listed else ()))
    newest = {release.release[:2]: release for release in releases if release >= oldest and not release.is_prerelease}
    return list(newest.values())


def overlay(release: Version, directory: Path) -> Path:
    """Return the folder of a release, installed below `directory` if it is not there.

    Raises subprocess.CalledProcessError where pip cannot install it.
    """
    folder = directory / str(release)
    if not folder.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=directory))
        try:
            wanted = {f"{PACKAGE}=={release}"}
            while wanted:
                _install(wanted, partial)
                wanted = _unmet(partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _install(requirements: set[str], folder: Path) -> None:
    # Without what they need, which for a folder of its own pip would install anew even where it is here.
    options = ["--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *sorted(requirements)], check=True)


def _unmet(folder: Path) -> set[str]:
    """Return the requirements of the packages in `folder` that neither it nor the environment meets."""
    own: dict[str, Distribution] = {canonicalize_name(each.name): each for each in distributions(path=[str(folder)])}
    unmet = set()
    for each in own.values():
        for text in each.requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(requirement.name)
            try:
                there = own[name].version if name in own else version(name)
            except PackageNotFoundError:
                there = None
            if there is None or not requirement.specifier.contains(there, prereleases=True):
                unmet.add(f"{requirement.name}{requirement.specifier}")
    return unmet
