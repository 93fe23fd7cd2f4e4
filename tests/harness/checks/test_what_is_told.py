"""What checks say: the exact words, and the evidence that an owner can act on."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.faults import FAULTS
from harness.faults.planting.code_edits import edit_foreign
from harness.report.divergence import divergences
from pruning import SubLayer, load_pruned
from tests.harness.checks.cases import Case, judge, judge_model, judge_mutation
from tests.harness.checks.planted import layer_2_is_louder, one_bit_flipped, one_nan

MESSAGES = {
    "stock-class-no-auto-map": (
        "stored.class",
        "the stock class of 'qwen3' is built: AutoModelForCausalLM is missing from auto_map in config.json, so 3 "
        "pruned sub-layers would be initialised at random and run (model_type='qwen3'; auto_map=None)",
    ),
    "attention-mlp-swapped": (
        "stored.plan",
        "config.json says self_attn 1, mlp 0-1, but pruning.json says self_attn 0-1, mlp 1 "
        "(the stored keys amount to: self_attn 0-1, mlp 1)",
    ),
    "kept-keys-lost": (
        "stored.keys",
        "4 key(s) that the plan (self_attn 0-1, mlp 1, from pruning.json) keeps are not stored "
        "(missing: model.layers.2.self_attn.k_norm.weight, model.layers.2.self_attn.q_norm.weight, "
        "model.layers.3.self_attn.k_norm.weight and 1 more; transformers initialises them at random)",
    ),
    "wrapper-prefix": (
        "stored.keys",
        "32 keys carry the prefix '_orig_mod.' of a wrapper, so that none of them is loaded "
        "(first _orig_mod.lm_head.weight)",
    ),
    "lm-head-lost": (
        "stored.tied-head",
        "lm_head.weight is not stored, though the head is not tied: it would be initialised at random "
        "(the base stores one; tie_word_embeddings=False)",
    ),
    "rope-theta-lost": ("stored.config", "config.json computes something else than the base's: "),
    "dtype-lost": (
        "stored.config",
        "dtype in config.json is None, but the base's is 'bfloat16' (the tensors are stored in bfloat16)",
    ),
}


@pytest.mark.parametrize("fault_id", MESSAGES)
def test_words_of_a_stored_fault(fault_id: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A fault of what is stored is told in one line: what it is, what it leads to, and what was measured."""
    name, message = MESSAGES[fault_id]
    report = judge_mutation(FAULTS[fault_id], case("untied"), tmp_path, keyword=name)
    assert report.checks[0].reason is not None
    assert report.checks[0].reason.startswith(message)
    assert "\n" not in report.checks[0].reason


def test_what_runs_is_all_that_is_wrong(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Of pruned sub-layers that run it is said whether the logits are right without what they put out."""
    told = "while they put out zeros the logits are right: without a cache nothing else is wrong"
    for name, is_all in (("flags lost", True), ("flags lost, and a kept mlp louder", False)):
        more = () if is_all else (("hidden_states + self.mlp(", "hidden_states + 1.1 * self.mlp("),)
        flags = ("layer_idx in config.skip_mlp", "False")
        edit_foreign(flags, *more)(case("untied").sound, tmp_path / name.replace(" ", "_"))
        report = judge(case("untied"), tmp_path / name.replace(" ", "_"), keyword="called")
        assert report.faults[0].id == "pruned-sub-layers-run"
        assert (told in report.faults[0].evidence) == is_all


def test_words_of_a_flipped_bit(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A single bit is noticed, and its tensor named, once against the base and once against the manifest."""
    one_bit_flipped(case("tied").sound, tmp_path / "bit")
    report = judge(case("tied"), tmp_path / "bit", keyword="bytes")
    assert [check.reason for check in report.checks] == [
        "the bytes of 1 of 26 kept tensors are not the base's (model.norm.weight; 1.6% of the elements of "
        "model.norm.weight differ)",
        "the bytes of 1 of 26 kept tensors are not pruning.json's (model.norm.weight)",
    ]
    assert report.faults[0].family == "keys"


def test_words_of_logits(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Logits are told as one number, what it should be, how the model was called, and what was allowed."""
    plan = r"self_attn 0-1, mlp 1"
    report = judge_mutation(
        FAULTS["kept-sublayer-skipped"], case("untied"), tmp_path, keyword="plain-float32.logits.identity.one-token"
    )
    (fault,) = report.faults
    seen = next(line for line in (fault.cause, *fault.evidence) if "logits[" in line)
    assert re.search(
        r"logits\[0, 0, \d+\]=-?[\d.e-]+, but should be -?[\d.e-]+ \[uncached, one-token tokens, identity reference, "
        rf"plan {plan}, plain-float32, device cpu\]: [\d.]+% of the logits are off, largest difference [\d.e-]+, "
        r"allowed [\d.e-]+ \(1e-05 of the largest logit, dtype=float32, operation=reference: ",
        seen,
    ), seen


def test_words_of_a_cache(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where only a cache goes wrong, the fault says which, used how, and that nothing else is wrong."""
    report = judge_mutation(
        FAULTS["layer-0-attention-decode"],
        case("untied"),
        tmp_path,
        keyword="plain-float32.cache.dynamic.one-step-at-a-time",
    )
    (fault,) = report.faults
    assert fault.cause == (
        "logits through a dynamic cache (one-step-at-a-time) are not those of the same model without a cache, "
        "which are right"
    )
    assert re.match(
        r"logits\[\d, \d+, \d+\]=\S+, but should be \S+ \[dynamic cache, one-step-at-a-time, ", fault.evidence[0]
    )
    assert fault.evidence[1:] == ("layer 0's attention is pruned, whose slot a cache asks for its length",)


def test_first_diverging_layer_is_named(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where nothing else explains the logits, evidence and numbers name the first layer that leaves the reference."""
    layer_2_is_louder(case("untied").sound, tmp_path / "louder")
    report = judge(case("untied"), tmp_path / "louder", keyword="logits.identity.random")
    (fault,) = report.faults
    assert (fault.family, fault.id) == ("code", "logits-differ")
    assert any(
        re.fullmatch(
            r"the first layer whose output leaves the reference is 2, by 0\.0[01]\d* of its largest value", line
        )
        for line in fault.evidence
    ), fault.evidence
    (divergence,) = divergences(report)
    assert divergence.first_beyond is not None
    assert divergence.first_beyond[0] == SubLayer(2, "mlp")
    assert {sublayer.layer for sublayer, _ in divergence.points} == {0, 1, 2, 3}


def test_layer_that_adds_its_norm_is_named(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Of a pruned sub-layer whose norm is still added, the evidence names the layer."""
    report = judge_mutation(
        FAULTS["pruned-norm-still-added:own"], case("tied"), tmp_path, keyword="logits.identity.random"
    )
    (fault,) = report.faults
    assert fault.family == "residual"
    assert fault.cause == "layer 0 adds norm(x) to x where its mlp is pruned, in place of passing x on"
    assert fault.evidence[0].startswith("the first layer whose output leaves the reference is 0, by ")


def test_layer_is_named_of_what_runs(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Of pruned sub-layers that run, the names are told."""
    report = judge_mutation(FAULTS["flags-on-instance-only"], case("tied"), tmp_path, keyword="plain-float32.called")
    (fault,) = report.faults
    assert fault.cause == ("2 pruned sub-layer(s) run in SkippingQwen3ForCausalLM: layers.0.mlp, layers.1.self_attn")


def test_stored_faults_come_before_what_they_lead_to(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A model that is loaded from faulty files computes faulty logits; only the files are told."""
    one_nan(case("tied").sound, tmp_path / "nan")
    report = judge(case("tied"), tmp_path / "nan", keyword="stored.values or logits.identity.random")
    assert [check.outcome for check in report.checks].count("failed") >= 1
    assert [fault.id for fault in report.faults] == ["not-finite"]


def test_two_faults_are_both_told(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Two faults of the files that have nothing to do with one another are both told."""
    FAULTS["rope-theta-lost"].plant(case("untied").sound, tmp_path / "one")  # type: ignore[misc]
    FAULTS["lm-head-lost"].plant(tmp_path / "one", tmp_path / "two")  # type: ignore[misc]
    report = judge(case("untied"), tmp_path / "two", keyword="stored")
    assert [fault.family for fault in report.faults] == ["config", "tied-head"]


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was(training: bool, case: Callable[[str], Case]) -> None:
    """A model that is given is judged in evaluation mode, and trains afterwards if it did before."""
    model = load_pruned(case("tied").sound).train(training)
    report = judge_model(model, case("tied"), "given-float32.logits.identity.random")
    assert report.checks[0].outcome == "passed"
    assert model.training is training
