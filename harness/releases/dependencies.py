"""What a set of packages needs, by the packages' own metadata, but for what torch alone needs.

torch is shared as it is. Where something that it asks for is not installed, or an older one is, it works without:
the packages of CUDA, for one, beside a build for the CPU. No set installs that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from harness.errors import CannotRun
from harness.system.requirements import own_requirements

from .package_set import SHARED, is_pinned


def needed(wanted: Iterable[Requirement], resolved: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the names of the packages that are reached from those that are wanted, torch and what is behind it apart.

    `resolved` has the requirements of each package that is to be installed, by its canonical name; those of others are
    what the running environment says.
    """
    reached: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if name in SHARED or (name, extras) in reached:
            continue
        reached.add((name, extras))
        waiting += _requirements(resolved[name] if name in resolved else _installed(name), extras)
    return {name for name, _ in reached}


def shared_as_constraints() -> list[str]:
    """Return, as lines of a constraints file, the torch that is here, and what prunecheck itself runs on."""
    return [f"torch=={version('torch')}", *(f"{each.name}{each.specifier}" for each in _runs_on() if each.specifier)]


def require_supported(wanted: Iterable[Requirement]) -> None:
    """Raise CannotRun for a release on which prunecheck does not run, as its own metadata has it."""
    supported = {canonicalize_name(each.name): each.specifier for each in _runs_on()}
    for requirement in filter(is_pinned, wanted):
        specifier = supported.get(canonicalize_name(requirement.name), SpecifierSet())
        if not specifier.contains(next(iter(requirement.specifier)).version, prereleases=True):
            raise CannotRun(f"prunecheck does not run on {requirement}: it needs {requirement.name}{specifier}")


def _runs_on() -> Iterator[Requirement]:
    for requirement in own_requirements():
        if canonicalize_name(requirement.name) not in SHARED:
            yield requirement


def _installed(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # such as what another platform needs
        return []


def _requirements(lines: Iterable[str], extras: frozenset[str]) -> Iterator[Requirement]:
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement
