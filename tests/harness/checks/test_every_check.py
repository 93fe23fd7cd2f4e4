"""Every check catches, by itself, a fault that was planted for it, and passes a sound checkpoint."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.faults import FAULTS, Fault
from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.loading import layers_on_disk
from harness.judge.all_checks import checks
from harness.models.modes import LoadingMode
from harness.report.report import Report
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, load_pruned, prune_checkpoint
from tests.harness.checks.cases import Case, judge, judge_model, judge_mutation, record, suitable_case, told
from tests.harness.checks.planted import (
    kept_module_not_quantised,
    left_out_when_saved,
    norm_in_float32,
    one_bit_flipped,
    one_nan,
    rotary_buffer_doubled,
)
from tests.harness.checks.wrong_code import WRONG

MODES = [
    LoadingMode("plain", "float32"),
    LoadingMode("plain", "8bit"),
    LoadingMode("disk-beside", "float32"),
    LoadingMode("disk-inside", "float32"),
    LoadingMode("disk-all", "float32"),
]
GIVEN = [LoadingMode("given", "float32"), LoadingMode("given", "8bit"), LoadingMode("disk-given", "float32")]


def planted(plant: Any) -> Fault:
    """Return a mutation of files that is no entry of the library in the library's words."""
    return Fault(id="planted", family="", where="", symptom="", description="", plant=plant)


def loaded(load: Any) -> Fault:
    """Return a load that is no entry of the library in the library's words."""
    return Fault(id="loaded", family="", where="", symptom="", description="", load=load)


PLANTED: dict[str, str | Fault] = {
    "stored.files": "truncated-file",
    "stored.config": "rope-theta-lost",
    "stored.class": "stock-class-no-auto-map",
    "stored.plan": "attention-mlp-swapped",
    "stored.keys": "kept-keys-lost",
    "stored.tied-head": "lm-head-lost",
    "stored.base-bytes": planted(one_bit_flipped),
    "stored.manifest-bytes": planted(one_bit_flipped),
    "stored.values": planted(one_nan),
    "stored.tokenizer": "eos-or-template-lost",
    "load": "kept-keys-lost",
    "placement": planted(norm_in_float32),
    "quantised-modules": loaded(kept_module_not_quantised),
    "resident": "peer-copy-corruption:simulated",
    "buffers": loaded(rotary_buffer_doubled),
    "repeatable": planted(edit_foreign(*WRONG["random"][0])),
    "called": "flags-on-instance-only",
    "poison": "zero-gate",
    "two-loads": "flags-on-instance-only",
    "logits.identity.random": "pruned-norm-still-added",
    "logits.identity.one-token": "kept-sublayer-skipped",
    "logits.identity.long": "rope-theta-lost",
    "logits.identity.several": "layer-return-type:reverse",
    "logits.identity.left-padded": "right-padding",
    "logits.identity.natural": "pruned-norm-still-added:own",
    "logits.zero-weights": "pruned-norm-still-added",
    "cache.dynamic.one-step-at-a-time": "layer-0-attention-decode",
    "cache.dynamic.chunked-prefill": "layer-0-attention-chunked-prefill:alone",
    "cache.dynamic.long": planted(edit_foreign(*WRONG["wrong once 40 tokens are cached"][0])),
    "cache.dynamic.reused": "first-full-attention-pruned:own",
    "cache.dynamic.left-padded": "layer-0-attention-left-padding",
    "cache.dynamic.beam": "cache-argument-renamed",
    "cache.static.one-step-at-a-time": "layer-0-attention-static-cache:alone",
    "cache.static.chunked-prefill": "layer-0-attention-static-cache:alone",
    "cache.static.long": planted(edit_foreign(*WRONG["wrong once 40 tokens are cached"][0])),
    "cache.static.reused": "layer-0-attention-static-cache:alone",
    "cache.static.left-padded": "layer-0-attention-static-cache:alone",
    "cache.static.beam": "layer-0-attention-static-cache:alone",
    "cache.none.one-step-at-a-time": "kept-sublayer-skipped",
    "cache.none.left-padded": "right-padding",
    "cache.none.beam": "kept-sublayer-skipped",
    "round-trip": planted(left_out_when_saved),
    "save": "offloaded-save",
    "text.greedy": "cache-argument-renamed",
    "text.sampled": "pruned-norm-still-added:own",
}
# What no checkpoint can bring about has a test of its own below.
OWN_TEST = {"stored.prune-again": "only a pruner that changes what it should copy can be caught"}
# Titles that never fail, and why.
NEVER_FAIL = {
    "stored.code": "code is judged by what it does; what changed in the files is a finding",
    "cache.none.chunked-prefill": "without a cache there is nothing to fill in chunks",
    "cache.none.long": "without a cache there is nothing to fill in chunks",
    "cache.none.reused": "without a cache there is nothing to use again",
}
# A fault that shows in another precision than float32; checks that need a tokenizer, or a checkpoint in float32.
PRECISION_OF = {"placement": "bfloat16"}
CASE_OF = {"logits.identity.natural": "tied", "cache.none.left-padded": "tied"}


def titles(modes: list[LoadingMode], *, given: bool = False) -> set[str]:
    """Return the titles of all checks of these modes."""
    return {check.title for check in checks(modes, given=given)}


def test_every_title_is_in_the_table() -> None:
    """No check is without a planted fault, or a reason why it has none, and the table names no check that is gone."""
    assert titles(MODES) | titles(GIVEN, given=True) == PLANTED.keys() | OWN_TEST.keys() | NEVER_FAIL.keys()


@pytest.mark.parametrize("title", PLANTED)
def test_catches_what_was_planted(title: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """The check, run alone, fails, and the verdict is faulty."""
    entry = PLANTED[title]
    fault = FAULTS[entry] if isinstance(entry, str) else entry
    if reason := fault.needs():
        pytest.skip(reason)
    each = case(CASE_OF[title]) if title in CASE_OF else suitable_case(fault, case)
    precision = PRECISION_OF.get(title, "float32")
    is_of_a_load = not title.startswith("stored.")
    # A load that is given has a mode of its own, which is the only one.
    name = f"plain-{precision}.{title}" if is_of_a_load and fault.plant is not None else title
    report = judge_mutation(fault, each, tmp_path, keyword=name, dtype=(precision,))
    (found,) = report.checks
    assert found.outcome == "failed", found
    assert report.verdict == "faulty"


def test_a_pruner_that_changes_bytes(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pruning once more changes a tensor that is kept, the checkpoint is not itself."""

    def prune_badly(source: Path, destination: Path, plan: PrunePlan, **options: Any) -> None:
        prune_checkpoint(source, tmp_path / "well", plan, **options)
        one_bit_flipped(tmp_path / "well", destination)

    monkeypatch.setattr("harness.checks.loaded.round_trip.prune_checkpoint", prune_badly)
    report = judge(case("tied"), keyword="stored.prune-again")
    assert report.checks[0].outcome == "failed"
    assert report.checks[0].reason is not None
    assert report.checks[0].reason.startswith(
        "pruned once more (mlp 2), the checkpoint is not itself: model.norm.weight differs from the "
    )


@pytest.fixture(scope="module")
def sound_reports(case: Callable[[str], Case], tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    """Return the reports on sound checkpoints, in every mode and for models that are given, that pass each check."""
    each = case("tied")
    with quiet_libraries():
        given: list[Any] = [load_pruned(each.sound), with_layers_on_disk(each.sound, tmp_path_factory.mktemp("disk"))]
    places = ("plain", "disk-beside", "disk-inside")
    quantisation = ("8bit",) if find_spec("bitsandbytes") else ()
    return [
        judge(each, device_map=places, quantisation=quantisation),
        *(judge_model(model, each) for model in given),
    ]


def with_layers_on_disk(checkpoint: Path, folder: Path) -> Any:
    """Return the sound model with every decoder layer on the disk."""
    return load_pruned(checkpoint, device_map=layers_on_disk(checkpoint), offload_folder=folder)


def test_passes_what_is_sound(sound_reports: list[Report]) -> None:
    """No check alarms on a sound checkpoint, and each that can fail passes it in one mode at least."""
    for report in sound_reports:
        assert report.verdict == "sound", told(report)
    outcomes = {(check.name, check.outcome) for report in sound_reports for check in report.checks}
    passed = {
        title
        for title in PLANTED.keys() | OWN_TEST.keys()
        if any(outcome == "passed" and (name == title or name.endswith(f".{title}")) for name, outcome in outcomes)
    }
    assert passed == PLANTED.keys() | OWN_TEST.keys()


@pytest.mark.parametrize("use", ["chunked-prefill", "long", "reused"])
def test_without_a_cache(use: str, sound_reports: list[Report]) -> None:
    """What fills a cache in pieces is not tried without one, and says so."""
    found = record(sound_reports[0], f"plain-float32.cache.none.{use}")
    assert found.reason == "without a cache there is nothing to fill in chunks or to use again"
