"""What the conformance suite runs on: the properties of the checkpoint that the options name, mode by mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checks.check import Check
from harness.models.session import Session, new_session

from .preparing import prepared


def pytest_configure() -> None:
    """Share the CPUs with the other workers: if all used every one, they would wait for one another."""
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each property, named after loading mode and property."""
    if "check" in metafunc.fixturenames:
        _, checks = prepared(metafunc.config)
        metafunc.parametrize("check", [_parameter(check) for check in checks])


def _parameter(check: Check) -> Any:
    mode = "stored" if check.mode is None else check.mode.name
    return pytest.param(check, id=check.name, marks=pytest.mark.prunecheck_mode(name=mode))


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Check], Any]]:
    """A function from a check to what it looks at; the models of one loading mode are in memory at a time."""
    subject, _ = prepared(pytestconfig)
    scratch: Path = tmp_path_factory.mktemp("prunecheck")
    session: Session | None = None

    def target_of(check: Check) -> Any:
        nonlocal session
        if check.mode is None:
            return subject
        if session is None or session.mode != check.mode:
            if session is not None:
                session.close()
            session = new_session(subject, check.mode, scratch)
        return session

    yield target_of
    if session is not None:
        session.close()
