"""What may stand behind `--with`: requirements of packages, as pip reads them, separated by spaces."""

from __future__ import annotations

from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import CannotRun

# The judge, and what it shares with every set: no set has one of its own.
SHARED: Final = ("torch", "prunecheck")


def read_set(text: str) -> tuple[Requirement, ...]:
    """Return the requirements of one set, such as those of `accelerate==1.14.0 transformers==5.20.2`.

    Raises CannotRun for what is not a requirement, for one that names a file or an address, and for SHARED packages.
    """
    requirements = []
    for part in text.split():
        try:
            requirement = Requirement(part)
        except InvalidRequirement as error:
            why = str(error).splitlines()[0]
            raise CannotRun(f"{part!r} is not a requirement ({why}): write, for one, transformers==5.23.0") from None
        if requirement.url is not None:
            raise CannotRun(f"{part!r} names an address: write the name and the release, such as transformers==5.23.0")
        if (name := canonicalize_name(requirement.name)) in SHARED:
            raise CannotRun(
                f"{part!r}: {name} is shared with the running environment: run prunecheck in one that has it"
            )
        requirements.append(requirement)
    if not requirements:
        raise CannotRun("a set names no package: write, for one, transformers==5.23.0")
    return tuple(requirements)


def is_pinned(requirement: Requirement) -> bool:
    """Whether a requirement leaves no choice: one `==`, without a wildcard."""
    specifiers = list(requirement.specifier)
    return len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith(".*")
