"""What the suite judges, read once from pytest's options."""

from __future__ import annotations

from typing import Any

import pytest

from harness.checks.check import Check
from harness.errors import CannotRun
from harness.judge.judge import checks_that_fit
from harness.models.modes import loading_modes
from harness.models.options import judging_options
from harness.subject.subject import Subject, read_subject
from pruning import PruningError

_PREPARED = pytest.StashKey[tuple[Subject, list[Check]]]()


def prepared(config: pytest.Config) -> tuple[Subject, list[Check]]:
    """Return the checkpoint that the options name, and the checks to run on it; raises pytest.UsageError."""
    if _PREPARED not in config.stash:
        if config.getoption("prunecheck_pruned") is None:
            raise pytest.UsageError("the suite needs --pruned DIR: the checkpoint to judge")
        try:
            config.stash[_PREPARED] = _read(config)
        except (CannotRun, PruningError) as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_PREPARED]


def _read(config: pytest.Config) -> tuple[Subject, list[Check]]:
    options: dict[str, Any] = judging_options(
        **{name: config.getoption(f"prunecheck_{name}") for name in ("plan", "device_map", "dtype", "quantisation")}
    )
    subject = read_subject(
        config.getoption("prunecheck_pruned"),
        config.getoption("prunecheck_base"),
        options["plan"],
        trust_remote_code=config.getoption("prunecheck_trust_remote_code"),
    )
    modes = list(loading_modes(options["device_map"], options["dtype"], options["quantisation"]))
    return subject, checks_that_fit(subject, modes)
