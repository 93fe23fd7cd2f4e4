"""Sound pruned checkpoints of several kinds, for planting in, and the reference of each."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from harness.system.libraries import quiet_libraries
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint
from tests.harness.faults.observing import Case

# In the order in which a case is looked for that meets what a fault or a variant requires.
SPECS = {
    "full": (TinySpec(), PrunePlan(self_attn=(1,), mlp=(2,))),
    "mixed": (TinySpec(layer_types="mixed", shards=2, tied=False), PrunePlan(self_attn=(0, 1), mlp=(1,))),
    "long": (
        TinySpec(layers=12, hidden_size=16, heads=2, key_value_heads=1, head_dim=8, intermediate_size=16),
        PrunePlan(self_attn=(1,), mlp=(0,)),
    ),
    "bfloat16": (TinySpec(layers=2, dtype="bfloat16"), PrunePlan(mlp=(0,))),
    "nothing": (TinySpec(layers=2), PrunePlan()),
    "everything": (TinySpec(layers=2), PrunePlan(self_attn=(0, 1), mlp=(0, 1))),
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: the models are so small that handing work to others costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Faulty loads make the libraries warn and log, which is not what is judged here."""
    with quiet_libraries():
        yield


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function from the name of a spec to its unpruned and its sound pruned checkpoint."""

    @functools.cache
    def make(name: str) -> Case:
        spec, plan = SPECS[name]
        folder = tmp_path_factory.mktemp(name)
        base = write_tiny_checkpoint(spec, folder / "base")
        prune_checkpoint(base, folder / "sound", plan, sync=False)
        return Case(base, folder / "sound", plan)

    return make


@pytest.fixture(scope="session")
def suitable_case(case: Callable[[str], Case]) -> Callable[[Callable[[Path], str | None]], Case]:
    """Return a function from a requirement to the first case that meets it."""

    def find(requires: Callable[[Path], str | None]) -> Case:
        return next(found for found in map(case, SPECS) if requires(found.sound) is None)

    return find
