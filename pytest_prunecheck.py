"""The pytest plugin of prunecheck: options and fixtures.

pytest imports this module at every start, whatever the suite at hand. So it has a name of its own and imports nothing
from `harness`, nor torch, until one of its options or fixtures is used: a repository may well have a `harness/` folder.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = {
    "pruned": "directory of the pruned checkpoint under test, for the fixture pruned_checkpoint",
    "base": "directory of the unpruned checkpoint it was made from, for the fixture base_checkpoint",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, under names that no suite has for something else."""
    group = parser.getgroup("prunecheck", "prunecheck: pruned language models")
    for name, text in _OPTIONS.items():
        group.addoption(f"--prunecheck-{name}", metavar="DIR", help=text)


@pytest.fixture(scope="session")
def pruned_checkpoint(pytestconfig: pytest.Config) -> Path:
    """The directory of the pruned checkpoint under test, as --prunecheck-pruned names it."""
    return _directory(pytestconfig, "pruned")


@pytest.fixture(scope="session")
def base_checkpoint(pytestconfig: pytest.Config) -> Path:
    """The directory of the unpruned checkpoint, as --prunecheck-base names it."""
    return _directory(pytestconfig, "base")


@pytest.fixture(scope="session")
def real_checkpoint() -> Path:
    """The directory of a real Qwen3 checkpoint that talks, fetched once; PRUNECHECK_CHECKPOINT names another."""
    path: Path = _harness("real_checkpoint").real_checkpoint_path()
    return path


def _directory(config: pytest.Config, name: str) -> Path:
    value = config.getoption(f"prunecheck_{name}")
    if value is None:
        raise pytest.UsageError(f"this test needs the option --prunecheck-{name} DIR: {_OPTIONS[name]}")
    if not Path(value).is_dir():
        raise pytest.UsageError(f"--prunecheck-{name}={value} is not a directory: name one that holds config.json")
    return Path(value)


def _harness(module: str) -> Any:
    """Import a module of `harness`, ours: another one may stand before it on the path."""
    package = import_module("harness")
    if not Path(str(package.__file__)).with_name("real_checkpoint.py").is_file():
        raise pytest.UsageError(
            f"{Path(str(package.__file__)).parent} hides prunecheck's package of the same name: "
            "run pytest without that folder's parent on sys.path, for example with --import-mode=importlib"
        )
    return import_module(f"harness.{module}")
