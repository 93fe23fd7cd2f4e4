"""What the tests of the matrix and the bisection share."""

from pathlib import Path

import pytest

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint
from tests.harness.releases.packages import Index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Return an empty index for pip, beside an empty cache."""
    return Index(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a stock checkpoint, and a soundly pruned one whose layer 0 lacks its attention."""
    folder = tmp_path_factory.mktemp("pair")
    base = write_tiny_checkpoint(TinySpec(layers=2), folder / "base")
    prune_checkpoint(base, folder / "slim", PrunePlan(self_attn=(0,), mlp=(1,)), sync=False)
    return base, folder / "slim"
