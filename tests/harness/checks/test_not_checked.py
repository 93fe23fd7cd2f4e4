"""What could not be checked: each skipped check says why, in words that tell what would change it."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.faults import foreign_checkpoint
from harness.faults.planting.checkpoint_files import copy_checkpoint
from harness.models.modes import LoadingMode
from harness.reference.models import load_stock
from harness.report.report import Report
from harness.system.libraries import quiet_libraries
from tests.harness.checks.cases import Case, judge, record, write_tokenizer
from tests.harness.checks.planted import layer_2_is_louder


def reason(report: Report) -> str:
    """Return why the one check of a report was skipped."""
    (only,) = report.checks
    assert only.outcome == "skipped"
    assert only.reason is not None
    return only.reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stored.base-bytes", "without --base there is nothing to compare the bytes with"),
        (
            "logits.identity.random",
            "without --base there are no logits of the unpruned model's weights to compare with",
        ),
        ("logits.zero-weights", "without --base there are no logits of the unpruned model's weights to compare with"),
    ],
)
def test_without_a_base(name: str, expected: str, case: Callable[[str], Case]) -> None:
    """What only the base can tell is skipped without it."""
    assert reason(judge(case("untied"), base=None, keyword=name)) == expected


def test_code_that_is_not_trusted(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code of no release does not run unless it is trusted, and the reason names the option."""
    foreign_checkpoint(case("tied").sound, tmp_path / "foreign")
    report = judge(case("tied"), tmp_path / "foreign", trust_remote_code=False, keyword="plain-float32.load")
    assert reason(report) == "the checkpoint's own code may not run: allow it with --trust-remote-code"


def test_no_tokenizer(case: Callable[[str], Case]) -> None:
    """Without a tokenizer there is no natural text, and the directory that lacks one is named."""
    report = judge(case("untied"), keyword="logits.identity.natural")
    assert reason(report) == f"{case('untied').base} has no tokenizer"


def test_tokenizer_of_another_vocabulary(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A tokenizer whose tokens the vocabulary does not have is not used."""
    base = tmp_path / "base"
    copy_checkpoint(case("untied").base, base)
    write_tokenizer(base)
    report = judge(case("untied"), base=base, keyword="logits.identity.natural")
    assert reason(report) == "the tokenizer gives the token 220, but the vocabulary has 64"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_mode_that_cannot_be(case: Callable[[str], Case]) -> None:
    """A mode that no machine has is one record, which says why."""
    report = judge(case("tied"), device_map=("disk-beside",), dtype=(), quantisation=("8bit",), keyword="disk-beside")
    assert reason(report) == "bitsandbytes does not quantise what lies on the disk"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("place", ["disk-beside", "disk-inside", "disk-all"])
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
def test_impossible_mode_is_refused(precision: str, place: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """What is left out as impossible is refused by transformers itself, for the stock model, too."""
    arguments = LoadingMode(place, precision).arguments(3, case("tied").plan, tmp_path)
    with quiet_libraries(), pytest.raises(ValueError, match="dispatched on the CPU or the disk"):
        load_stock(case("tied").base, **arguments)


def test_mode_that_is_missing_here(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that this machine lacks something for is one record, which says what."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    report = judge(case("tied"), device_map=("gpu",), keyword="gpu")
    assert reason(report) == "this machine has 0 GPU(s), and it needs 1"


def test_missing_quantiser(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bitsandbytes the quantised modes say that it is not installed."""
    monkeypatch.setattr("harness.models.modes.find_spec", lambda name: None)
    report = judge(case("tied"), dtype=(), quantisation=("4bit",), keyword="4bit")
    assert reason(report) == "bitsandbytes is not installed"


def test_too_little_memory(case: Callable[[str], Case]) -> None:
    """Where no plain mode fits, it says so, and every layer is left on the disk in place of it."""
    report = judge(case("tied"), memory=1)
    loads = record(report, "plain-float32.load")
    assert loads.outcome == "skipped"
    assert loads.reason == "the models need about 0.0 GB as plain-float32, and 0.0 GB are free"
    assert record(report, "disk-all-float32.load").outcome == "passed"
    assert record(report, "disk-all-float32.logits.identity.random").outcome == "passed"
    assert report.verdict == "sound"


def test_fault_with_too_little_memory(case: Callable[[str], Case], tmp_path: Path) -> None:
    """What computes something else is found with every layer on the disk, too."""
    layer_2_is_louder(case("untied").sound, tmp_path / "louder")
    report = judge(case("untied"), tmp_path / "louder", memory=1, keyword="load or logits.identity.random")
    assert report.verdict == "faulty"
    assert [check.name for check in report.checks if check.outcome == "failed"] == [
        "disk-all-float32.logits.identity.random"
    ]


def test_nothing_pruned_cannot_be_poisoned(case: Callable[[str], Case]) -> None:
    """Where nothing is pruned there is nothing to poison."""
    assert reason(judge(case("nothing"), keyword="poison")) == "nothing is pruned"


def test_no_check_of_that_name(case: Callable[[str], Case]) -> None:
    """A keyword that matches no check, or is no expression, cannot be run."""
    with pytest.raises(CannotRun, match=r"^no check has a name that matches 'such'$"):
        judge(case("tied"), keyword="such")
    with pytest.raises(CannotRun, match=r"^-k 'or or' is no expression: "):
        judge(case("tied"), keyword="or or")
