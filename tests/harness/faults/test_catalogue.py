"""The catalogue of faults and sound variants, and what `plant` refuses."""

from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.faults import FAULTS, SOUND_VARIANTS, plant
from harness.faults.planting.checkpoint_files import config_of
from tests.harness.faults.conftest import SPECS

FAMILIES = {
    "class": "stock-class-no-auto-map trust-remote-code-omitted other-class-registered stale-remote-code",
    "plan": "flags-on-instance-only integer-keys-become-strings plan-inverted-or-shifted attention-mlp-swapped "
    "kept-sublayer-skipped",
    "config": "too-few-layers stale-layer-types rope-theta-lost",
    "residual": "pruned-norm-still-added identity-as-attention",
    "gate": "zero-gate gate-tensor-attribute gate-parameter-not-saved",
    "code": "layer-return-type",
    "cache": "cache-argument-renamed layer-idx-stale layer-0-attention-decode layer-0-attention-left-padding "
    "layer-0-attention-static-cache layer-0-attention-chunked-prefill first-full-attention-pruned",
    "keys": "kept-keys-lost pruned-keys-kept random-weights-saved-back wrapper-prefix broken-keys-by-mismatch",
    "tied-head": "lm-head-lost tie-flag-over-different-head tied-keys-declaration-lost",
    "files": "truncated-file shard-not-in-index shard-missing stale-single-file",
    "buffers": "inv-freq-uninitialised",
    "precision": "float16-overflow dtype-lost",
    "quantisation": "prequantised-then-pruned quantised-but-float-left stock-class-quantised",
    "offload": "offloaded-save offload-file-rewritten swapped-weight-map peer-copy-corruption",
    "tokenizer": "eos-or-template-lost",
    "padding": "right-padding",
    "adapter": "adapter-on-pruned",
}
WHERE = {"weights", "config", "index", "code", "load", "environment", "tokenizer"}
VARIANTS = (
    "one-file sharded prefix-stripped no-format-metadata foreign-flags disk-offload gradient-checkpointing "
    "pruned-modules-poisoned first-attention-pruned fewer-attentions nothing-pruned everything-pruned "
    "whole-layer-pruned tied-head untied-head mixed-attention float32 bfloat16 sdpa eager "
    "tokenizer-saved-again generation-defaults-left-out"
)


def test_every_known_fault_is_there():
    """Every known fault is there under its own name and family, and nothing else but further forms of these."""
    known = {fault_id: family for family, ids in FAMILIES.items() for fault_id in ids.split()}
    assert len(known) == 50
    assert {fault.id: fault.family for fault in FAULTS.values() if ":" not in fault.id} == known
    for fault in FAULTS.values():
        assert fault.family == known[fault.id.partition(":")[0]]


def test_every_fault_says_what_it_is():
    """Each is found under its own id, is either planted or loaded, and says where, what, and what is seen."""
    for name, fault in FAULTS.items():
        assert name == fault.id
        assert fault.where in WHERE
        assert fault.symptom
        assert fault.description
        assert (fault.plant is None) != (fault.load is None)
        if fault.where in ("load", "environment"):
            assert fault.load is not None
        else:
            assert fault.plant is not None


def test_every_sound_variant_is_there():
    """Each sound variant is there, found under its own id, and either planted or loaded."""
    assert sorted(SOUND_VARIANTS) == sorted(VARIANTS.split())
    for name, variant in SOUND_VARIANTS.items():
        assert name == variant.id
        assert variant.description
        assert (variant.plant is None) != (variant.load is None)


@pytest.mark.parametrize("name", SPECS)
def test_reasons_are_one_line(case, name):
    """What an environment or a checkpoint lacks is said in one line that names it."""
    sound = case(name).sound
    for mutation in (*FAULTS.values(), *SOUND_VARIANTS.values()):
        needs, requires = mutation.needs(), mutation.requires(sound)
        assert needs is None or (needs and "\n" not in needs)
        assert requires is None or ("\n" not in requires and str(sound) in requires)


def refusal(fault_id: str, checkpoint: Path, destination: Path) -> str:
    """Return the text with which `plant` refuses."""
    with pytest.raises(CannotRun) as error:
        plant(fault_id, checkpoint, destination)
    return str(error.value)


def test_plant_refuses_in_one_line(case, tmp_path):
    """`plant` refuses an unknown fault, one of a load, a used destination, no checkpoint, and an unsuitable one."""
    sound, new = case("full").sound, tmp_path / "new"
    assert refusal("no-such", sound, new).startswith("there is no fault 'no-such'; there are adapter-on-pruned, ")
    assert refusal("right-padding", sound, new) == (
        "right-padding is not planted in files, but in the load: use FAULTS['right-padding'].load"
    )
    assert refusal("wrapper-prefix", sound, tmp_path) == f"{tmp_path} exists: name a directory that does not"
    assert refusal("wrapper-prefix", tmp_path, new) == f"{tmp_path} is no checkpoint: it has no config.json"
    assert refusal("lm-head-lost", sound, new) == (
        f"lm-head-lost cannot be planted: {sound} stores no head of its own (lm_head.weight), "
        "but the fault is about one"
    )
    assert not new.exists()


def test_plant_leaves_nothing_behind_when_it_fails(case, tmp_path, monkeypatch):
    """Where planting itself fails, the destination is gone again."""
    monkeypatch.setattr("harness.faults.catalogue.weights.edit_tensors", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plant("wrapper-prefix", case("full").sound, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_faults_one_after_the_other(case, tmp_path):
    """A fault is planted in a checkpoint that has another one already, wherever it still meets what is required."""
    plant("rope-theta-lost", case("mixed").sound, tmp_path / "one")
    plant("layer-0-attention-decode", tmp_path / "one", tmp_path / "two")
    config = config_of(tmp_path / "two")
    assert "rope_theta" not in config
    assert config["skip_attention"] == [0, 1]
    plant("attention-mlp-swapped", tmp_path / "two", tmp_path / "three")
    assert config_of(tmp_path / "three")["skip_mlp"] == [0, 1]


def test_faults_that_exclude_each_other_are_refused(case, tmp_path):
    """A second fault is refused in one line where the first has changed, or broken, what it would change."""
    sound = case("mixed").sound
    plant("layer-0-attention-decode", sound, tmp_path / "edited")
    assert "\n" not in (reason := refusal("cache-argument-renamed", tmp_path / "edited", tmp_path / "new"))
    assert reason.startswith("the modeling file holds ")
    plant("truncated-file", sound, tmp_path / "broken")
    assert refusal("wrapper-prefix", tmp_path / "broken", tmp_path / "new").startswith(
        f"wrapper-prefix cannot be planted: a file of weights in {tmp_path / 'broken'}: "
    )
    assert not (tmp_path / "new").exists()
