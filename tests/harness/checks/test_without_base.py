"""Without the base: nothing is called sound unless a part is said to be enough, and faults are found all the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.faults import FAULTS
from harness.faults.planting.checkpoint_files import edit_json
from tests.harness.checks.cases import Case, judge, judge_mutation, record, suitable_case, told
from tests.harness.checks.planted import layer_2_is_louder, one_bit_flipped


def test_undecided(case: Callable[[str], Case]) -> None:
    """A sound checkpoint is undecided: keys and bytes were checked, logits were not."""
    report = judge(case("untied"), base=None)
    assert report.verdict == "undecided", told(report)
    assert (report.coverage.keys, report.coverage.bytes, report.coverage.logits) == (True, "manifest", False)


def test_a_part_is_enough(case: Callable[[str], Case]) -> None:
    """Where a part is allowed to be enough, a sound checkpoint is sound."""
    report = judge(case("tied"), base=None, allow_partial=True)
    assert report.verdict == "sound", told(report)


@pytest.mark.many_cases
@pytest.mark.parametrize(
    "fault_id",
    [
        "kept-keys-lost",
        "lm-head-lost",
        "stock-class-no-auto-map",
        "kept-sublayer-skipped",
        "pruned-norm-still-added",
        "pruned-norm-still-added:own",
        "layer-0-attention-decode",
        "zero-gate",
        "layer-return-type:own",
        "rope-theta-lost",
        "dtype-lost",
        "tie-flag-over-different-head",
    ],
)
def test_fault_is_found(fault_id: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Faults of keys, plan and code need no base, and end faulty though a part is allowed to be enough."""
    fault = FAULTS[fault_id]
    report = judge_mutation(
        fault, suitable_case(fault, case), tmp_path, base=None, allow_partial=True, keyword="not text"
    )
    assert report.verdict == "faulty"
    assert report.faults[0].family == fault.family, told(report)


def test_wrong_layer_is_found(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code that computes something else on the right weights is found without the base."""
    layer_2_is_louder(case("untied").sound, tmp_path / "louder")
    report = judge(case("untied"), tmp_path / "louder", base=None, keyword="logits.identity.random")
    assert report.verdict == "faulty"
    assert report.faults[0].family == "code", told(report)


def test_changed_bit_is_found(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A bit that changed is found by the manifest's checksum."""
    one_bit_flipped(case("untied").sound, tmp_path / "bit")
    report = judge(case("untied"), tmp_path / "bit", base=None, keyword="stored")
    assert record(report, "stored.manifest-bytes").outcome == "failed"
    assert report.verdict == "faulty"


def test_files_that_the_manifest_has(case: Callable[[str], Case], tmp_path: Path) -> None:
    """The tokenizer's files are compared with the manifest's checksums, and others are left undecided by name."""
    report = judge(case("tied"), base=None, keyword="stored.tokenizer")
    assert record(report, "stored.tokenizer").outcome == "passed", told(report)
    other = tmp_path / "other"
    shutil.copytree(case("tied").sound, other)
    with (other / "tokenizer.json").open("a") as file:
        file.write("\n")
    (other / "tokenizer_config.json").unlink()
    report = judge(case("tied"), other, base=None, keyword="stored.tokenizer")
    skipped = record(report, "stored.tokenizer")
    assert skipped.outcome == "skipped"
    assert skipped.reason is not None
    assert skipped.reason.startswith("tokenizer.json, tokenizer_config.json: not what")


@pytest.mark.parametrize("source", [None, "text", {}, {"config": 3, "files": []}, {"config": {"hidden_size": "wide"}}])
def test_a_manifest_that_notes_no_config(source: object, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where the manifest does not say what the unpruned config was, nothing is compared with it."""
    other = tmp_path / "other"
    shutil.copytree(case("tied").sound, other)
    edit_json(other / "pruning.json", lambda manifest: manifest.update(source=source))
    report = judge(case("tied"), other, base=None, keyword="stored", allow_partial=True)
    assert report.verdict == "sound", told(report)
    assert record(report, "stored.tokenizer").outcome == "skipped"
