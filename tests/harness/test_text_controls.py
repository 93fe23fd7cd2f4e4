"""The limits of the judge of text hold for every control, on the real checkpoint.

A small selection is in every run; all of them are in the tox environment `sweep`, which writes, if the environment
variable PRUNECHECK_REWRITE is set, what it measured to fixtures/text_controls.json, for the plot in docs/text-judge.md.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.judge.judge import check_checkpoint, check_model
from harness.system.libraries import quiet_libraries
from harness.text.generation import Voice, text_prompts
from pruning import load_pruned, prune_checkpoint
from tests.harness.text_controls import (
    REAL_PLAN,
    RUINOUS_PLANS,
    SOUND_PLANS,
    Controls,
    every_control,
    faults_in_memory,
    other_plans,
    underflow,
    write_records,
    wrong_tokenizers,
)
from tests.harness.text_faults import PRECISIONS, positions_shifted, stock_class
from tests.harness.twins import underflowing

RECORDS = Path(__file__).parents[2] / "fixtures" / "text_controls.json"
FEW_PROMPTS = [text_prompts()[kind][-1] for kind in ("list", "another language")]
FEW_TOKENS = 10
pytestmark = pytest.mark.real_checkpoint


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Without the libraries' notices, which 8-bit gives for each layer and token."""
    with quiet_libraries():
        yield


@pytest.fixture(scope="module")
def real(real_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The real checkpoint, and the same pruned by REAL_PLAN."""
    pruned = tmp_path_factory.mktemp("real") / "pruned"
    prune_checkpoint(real_checkpoint, pruned, REAL_PLAN, sync=False)
    return real_checkpoint, pruned


@pytest.fixture(scope="module")
def few(real: tuple[Path, Path]) -> Controls:
    """The controls in float32, of few prompts."""
    with quiet_libraries():
        return Controls(real[0], "float32", FEW_PROMPTS, FEW_TOKENS)


@pytest.mark.newest
def test_sound_models_and_ruinous_plans(real: tuple[Path, Path], few: Controls) -> None:
    """Sound plans and samples are sound, and ruinous plans are told from faults."""
    model: Any = load_pruned(real[1], dtype=torch.float32)
    for temperature in (0.0, 1.5):
        few.candidate(f"temperature {temperature:g}", "sound", Voice(model), temperature)
    few.plan("4 least harmful", "sound", SOUND_PLANS["4 least harmful"])
    for name, plan in RUINOUS_PLANS.items():
        few.plan(name, "plan ruins the model", plan)
    assert not few.wrong


@pytest.mark.newest
def test_faults_are_garbled(real: tuple[Path, Path], few: Controls, tmp_path: Path) -> None:
    """A broken cache, random modules and another tokenizer are garbled."""
    model: Any = load_pruned(real[1], dtype=torch.float32)
    faults = faults_in_memory(model)
    for name in ("cache ignored in one layer", "positions off by one"):
        few.candidate(name, "garbled", Voice(model, faults[name]))
    few.candidate("random modules", "garbled", Voice(stock_class(real[1], tmp_path / "stock")))
    for name, tokenizer in wrong_tokenizers(real[0], tmp_path):
        few.candidate(name, "garbled", Voice(model), tokenizer=tokenizer)
    assert not few.wrong


@pytest.mark.newest
def test_other_plans_are_garbled(few: Controls) -> None:
    """A model of another plan than the one that was meant is garbled."""
    for name, plan in other_plans():
        few.candidate(name, "garbled", few.pruned_base(plan))
    assert not few.wrong


@pytest.mark.newest
@pytest.mark.parametrize("precision", ["bfloat16", "8bit", "4bit"])
def test_other_precisions(real: tuple[Path, Path], precision: str) -> None:
    """The noise of a precision is sound, a cache that is off by one position is garbled."""
    controls = Controls(real[0], precision, FEW_PROMPTS, FEW_TOKENS)
    model: Any = load_pruned(real[1], **PRECISIONS[precision])
    controls.candidate("temperature 0", "sound", Voice(model))
    controls.candidate("positions off by one", "garbled", Voice(model, lambda: positions_shifted(model, 1)))
    assert not controls.wrong


def test_8bit_that_underflows_is_garbled(real: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint whose 8-bit load underflows is garbled although the equally loaded reference is, too."""
    assert not underflow(real[0], tmp_path, FEW_PROMPTS, FEW_TOKENS).wrong


@pytest.fixture(scope="module")
def underflows(real: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint whose 8-bit load underflows, and the same pruned by REAL_PLAN."""
    folder = tmp_path_factory.mktemp("underflows")
    base, pruned = underflowing(real[0], folder / "base"), folder / "pruned"
    prune_checkpoint(base, pruned, REAL_PLAN, sync=False)
    return base, pruned


@pytest.mark.newest
def test_8bit_that_underflows_is_told(underflows: tuple[Path, Path]) -> None:
    """Of a checkpoint it is a finding that 8-bit ruins it."""
    base, pruned = underflows
    report = check_checkpoint(
        pruned, base=base, device_map=("plain",), dtype=(), quantisation=("8bit",), keyword="text.greedy"
    )
    assert report.faults == ()
    assert [finding for finding in report.findings if finding.startswith("the precision itself ruins this model")]


@pytest.mark.newest
def test_8bit_model_that_underflows_is_faulty(underflows: tuple[Path, Path]) -> None:
    """In a model that somebody loaded so, it is a fault that 8-bit ruins it."""
    base, pruned = underflows
    report = check_model(load_pruned(pruned, **PRECISIONS["8bit"]), checkpoint=pruned, base=base, keyword="text.greedy")
    assert [fault.id for fault in report.faults] == ["precision-ruins-the-model"]


@pytest.mark.sweep
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_control(real: tuple[Path, Path], tmp_path: Path, precision: str) -> None:
    """Each control, over prompts of every kind, gets the verdict that it should."""
    controls = every_control(*real, tmp_path, precision, text_prompts())
    if precision == "8bit":
        controls.records += underflow(real[0], tmp_path, FEW_PROMPTS, FEW_TOKENS).records
    if os.environ.get("PRUNECHECK_REWRITE"):
        write_records(RECORDS, controls.records)
    assert not controls.wrong
