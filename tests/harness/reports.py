"""Reports made by hand, and what is printed of them."""

import io
from collections.abc import Callable
from typing import Any, get_args

from hypothesis import strategies as st
from rich.console import Console

from harness.report.outcomes import FAMILIES, CheckRecord, Coverage, FoundFault, Outcome
from harness.report.report import Report

COMPLETE = Coverage(keys=True, bytes="base", logits=True)
FAULT = FoundFault(
    family="keys",
    id="bytes-differ",
    cause="the bytes of 2 of 31 kept tensors are not the base's",
    evidence=("model.norm.weight, lm_head.weight", "50.0% of the elements of model.norm.weight differ"),
    remedy="Prune the base again with prunecheck.",
)


def passed(name: str, seconds: float = 0.25, **numbers: float) -> CheckRecord:
    """A check that passed."""
    return CheckRecord(name, "passed", None, seconds, numbers)


def failed(name: str, reason: str = "the logits differ", seconds: float = 0.25, **numbers: float) -> CheckRecord:
    """A check that failed."""
    return CheckRecord(name, "failed", reason, seconds, numbers)


def skipped(name: str, reason: str = "there is no tokenizer", seconds: float = 0.0) -> CheckRecord:
    """A check that was skipped."""
    return CheckRecord(name, "skipped", reason, seconds)


def crashed(name: str, reason: str = "KeyError: 'mode'", seconds: float = 0.25) -> CheckRecord:
    """A check that crashed."""
    return CheckRecord(name, "error", reason, seconds, {}, f"Traceback (most recent call last):\n  {name}\n{reason}\n")


def undecided(name: str, reason: str = "the stock model leaves itself as far", seconds: float = 0.25) -> CheckRecord:
    """A check that looked, and could not decide."""
    return CheckRecord(name, "undecided", reason, seconds)


def report_of(*checks: CheckRecord, **other: Any) -> Report:
    """A report with the given checks: sound, unless it is given something else."""
    fields = {
        "checkpoint": "/models/slim",
        "base": "/models/base",
        "plan": {"self_attn": [0, 2], "mlp": [1]},
        "checks": checks or (passed("stored.keys"),),
        "coverage": COMPLETE,
        "faults": (),
        "findings": (),
        "environment": {},
    }
    return Report(**(fields | other))


def printed(
    show: Callable[..., None], content: object, width: int = 160, *, debug: bool | None = None, **console: Any
) -> str:
    """Return what `show` prints of something, without the spaces that fill its lines; `debug` is handed on to it."""
    file = io.StringIO()
    options = {} if debug is None else {"debug": debug}
    show(content, console=Console(file=file, width=width, highlight=False, **console), **options)
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n"))


def reports() -> st.SearchStrategy[Report]:
    """Reports of any content: texts hold whatever a checkpoint's files may."""
    texts = st.text(max_size=30)
    numbers = st.floats(allow_nan=False)
    checks = st.builds(
        CheckRecord,
        name=st.one_of(texts, st.builds("{}.{}".format, texts, texts)),
        outcome=st.sampled_from(get_args(Outcome)),
        reason=st.none() | texts,
        seconds=st.floats(0, 1e6),
        numbers=st.dictionaries(texts, numbers, max_size=3),
        traceback=st.none() | texts,
    )
    coverages = st.builds(
        Coverage,
        keys=st.booleans(),
        bytes=st.sampled_from(["base", "manifest", None]),
        logits=st.booleans(),
        partial_allowed=st.booleans(),
    )
    faults = st.builds(
        FoundFault,
        family=st.sampled_from(FAMILIES),
        id=texts,
        cause=texts,
        evidence=st.lists(texts, max_size=3).map(tuple),
        remedy=texts,
    )
    indexes = st.lists(st.integers(0, 99), unique=True, max_size=4)
    environments = st.fixed_dictionaries(
        {"plan_from": texts, "versions": st.dictionaries(texts, st.none() | texts, max_size=3)},
        optional={"options": st.fixed_dictionaries({"keyword": st.none() | texts})},
    )
    return st.builds(
        Report,
        checkpoint=texts,
        base=st.none() | texts,
        plan=st.fixed_dictionaries({"self_attn": indexes, "mlp": indexes}),
        checks=st.lists(checks, max_size=6, unique_by=lambda check: check.name).map(tuple),
        coverage=coverages,
        faults=st.lists(faults, max_size=2).map(tuple),
        findings=st.lists(texts, max_size=2).map(tuple),
        environment=environments,
    )
