"""The cases that the tests of the checks share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.harness.checks.cases import Case, cases_in


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: the models are so small that handing work to others costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function from the name of a spec to its unpruned and its sound pruned checkpoint."""
    return cases_in(tmp_path_factory.mktemp("checks"))
