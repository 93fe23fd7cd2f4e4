"""Tiny checkpoints, unpruned and pruned, that the tests of the model and of its loading share."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

Checkpoints = Callable[[TinySpec, PrunePlan], tuple[Path, Path]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Run torch on one thread: the models are so small that handing work to others costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Return a function from a spec and a plan to the directories of the unpruned and of the pruned checkpoint.

    Equal arguments give the same directories: a test that changes a file works on a copy.
    """

    @functools.cache
    def base(spec: TinySpec) -> Path:
        return write_tiny_checkpoint(spec, tmp_path_factory.mktemp("base"))

    @functools.cache
    def pruned(spec: TinySpec, plan: PrunePlan) -> tuple[Path, Path]:
        destination = tmp_path_factory.mktemp("pruned") / "checkpoint"
        prune_checkpoint(base(spec), destination, plan, sync=False)
        return base(spec), destination

    return pruned
