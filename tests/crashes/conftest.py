"""What is killed here computes nothing that depends on the version of transformers: the newest runs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.killing import Killer, killer

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.newest)


@pytest.fixture(scope="package")
def killing() -> Iterator[Killer]:
    """What runs command lines of `prune`, and kills them."""
    with killer("prune", "/nowhere", "/nowhere/out", "--mlp", "0") as each:
        yield each
