"""Faults and sound checkpoints that hypothesis draws, judged."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from harness.faults import Fault
from harness.judge.judge import check_checkpoint
from harness.strategies import SpecBounds, checkpoints
from harness.tiny import write_tiny_checkpoint
from pruning import prune_checkpoint
from tests.harness.checks.cases import (
    PLAIN,
    WITHOUT_TEXT,
    Case,
    judge_mutation,
    told,
    told_family,
    write_tokenizer,
)

_NUMBERS = count()
# What a fault requires is rare among checkpoints that are drawn without a thought of it.
_BOUNDS: dict[str, SpecBounds] = {
    "kept-keys-lost:longer-numbers": {"min_layers": 11, "max_layers": 13},
    "quantised-but-float-left": {"quantisable": True},
    "stock-class-quantised": {"quantisable": True},
    "prequantised-then-pruned": {"quantisable": True},
    "dtype-lost": {"dtypes": ("bfloat16",)},
}


def judge_drawn_sound(data: st.DataObject, folder: Path) -> None:
    """Draw a checkpoint and a plan, and require that the pruned checkpoint is sound."""
    case = data.draw(checkpoints())
    base, pruned = case.write(folder / f"sound_{next(_NUMBERS)}")
    report = check_checkpoint(pruned, base=base, **PLAIN)
    assert report.verdict == "sound", told(report)


def judge_drawn_fault(fault: Fault, data: st.DataObject, folder: Path) -> Any:
    """Draw a checkpoint in which the fault can be planted, and require that it is found, under its family."""
    if reason := fault.needs():
        pytest.skip(reason)
    case = data.draw(checkpoints(**_BOUNDS.get(fault.id, {})))
    each = folder / f"case_{next(_NUMBERS)}"
    if fault.where == "tokenizer":
        spec = replace(case.spec, vocabulary_size=320)  # of the tokens that the tokenizer has
        base, sound = write_tiny_checkpoint(spec, each / "base"), each / "pruned"
        write_tokenizer(base)
        prune_checkpoint(base, sound, case.plan, sync=False)
    else:
        base, sound = case.write(each)
    assume(fault.requires(sound) is None)
    report = judge_mutation(fault, Case(base, sound, case.plan), each, keyword=WITHOUT_TEXT)
    assert report.verdict == "faulty", told(report)
    assert report.faults[0].family == told_family(fault), told(report)
    return report
