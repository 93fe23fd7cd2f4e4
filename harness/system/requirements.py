"""Are the installed libraries of releases that prunecheck supports? Its own package metadata says which those are."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from harness.errors import CannotRun

_PACKAGE = "prunecheck"


def require_libraries() -> None:
    """Raise CannotRun for the first library whose installed release is not one that prunecheck supports.

    Asked before torch and transformers are imported: with an older transformers an import may fail, or an argument be
    ignored, for which a checkpoint would be blamed. One that is absent is left to whatever needs it.
    """
    for requirement in own_requirements():
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            needed = f"{requirement.name}{requirement.specifier}"
            raise CannotRun(
                f"{requirement.name} {installed} is installed, but {_PACKAGE} needs {needed}: "
                f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(needed)}"
            )


def own_requirements() -> list[Requirement]:
    """Return what prunecheck needs on this machine, extras apart, by its metadata; empty where it has none."""
    try:
        lines = requires(_PACKAGE) or []
    except PackageNotFoundError:  # the code alone, beside whatever is installed
        return []
    found = map(Requirement, lines)
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]
