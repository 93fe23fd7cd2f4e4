"""Each fault shows the symptom that it states, and planting leaves the sound checkpoint as it was."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.faults import FAULTS, plant
from harness.faults.catalogue.load import scale_activations
from harness.faults.planting.checkpoint_files import config_of, copy_checkpoint
from harness.faults.planting.loading import in_4bit, layers_on_disk, scratch_checkpoint
from tests.harness.faults.observing import (
    EVERY_TOKEN,
    IDS,
    LEFT_PADDED,
    Case,
    assert_same,
    cached,
    differ,
    load,
    loaded,
    resident_bytes,
    stored_bytes,
    uncached,
)

# Faults whose symptom takes more than a look at one model; each has a test of its own below.
OWN_TESTS = {
    "dtype-lost",
    "eos-or-template-lost",
    "eos-or-template-lost:template",
    "offloaded-save",
    "right-padding",
    "swapped-weight-map",
}
# Faults that hand what the memory held to the model.
OVER_UNINITIALISED_MEMORY = {"zero-gate", "gate-parameter-not-saved", "inv-freq-uninitialised"}


def with_symptom(*words: str) -> pytest.MarkDecorator:
    """Parametrise a test with every fault whose stated symptom begins with one of the words."""
    ids = [name for name, fault in FAULTS.items() if fault.symptom.startswith(words) and name not in OWN_TESTS]
    return pytest.mark.parametrize("fault_id", ids)


@pytest.fixture
def fault(fault_id: str) -> Any:
    """Return the fault, or skip the test where it cannot be shown."""
    found = FAULTS[fault_id]
    if reason := found.needs():
        pytest.skip(reason)
    return found


@pytest.fixture
def uninitialised_memory_is_nan(fault_id: str) -> Iterator[None]:
    """Let uninitialised memory hold NaN, as it may, where it matters what it holds."""
    torch.use_deterministic_algorithms(fault_id in OVER_UNINITIALISED_MEMORY)
    yield
    torch.use_deterministic_algorithms(False)


def contents(directory: Path) -> dict[str, str]:
    """Return the checksum of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize("fault_id", [name for name, each in FAULTS.items() if each.plant and "template" not in name])
def test_planting_changes_the_copy_alone(fault_id, suitable_case, tmp_path):
    """Planting writes a checkpoint that differs from the sound one, and leaves that as it was, in any environment."""
    fault = FAULTS[fault_id]
    sound = suitable_case(fault.requires).sound
    before = contents(sound)
    plant(fault.id, sound, tmp_path / "faulty")
    assert contents(sound) == before
    planted = contents(tmp_path / "faulty")
    assert planted
    assert planted != before


@with_symptom("first", "drift")
def test_wrong_from_the_first_token(fault, suitable_case, uninitialised_memory_is_nan):
    """The logits of a plain pass leave the reference."""
    case: Case = suitable_case(fault.requires)
    with loaded(fault, case.sound) as model:
        assert differ(uncached(model), uncached(case.reference(torch.float32)))


@with_symptom("decode")
def test_wrong_in_decoding(fault, suitable_case):
    """A plain pass is right; through one kind of cache at least, padded or not, it is not."""
    case: Case = suitable_case(fault.requires)
    reference = case.reference(torch.float32)
    expected = uncached(reference)
    with loaded(fault, case.sound) as model:
        assert_same(uncached(model), expected, fault.id)
        assert any(
            differ(through_cache(model, kind, mask), uncached(reference, mask), mask)
            for kind in ("dynamic", "static")
            for mask in (EVERY_TOKEN, LEFT_PADDED)
        )


def through_cache(model: Any, kind: str, mask: torch.Tensor) -> torch.Tensor:
    """Return cached logits; a length that is wrong may also make shapes disagree, which counts as wrong logits."""
    try:
        return cached(model, kind, mask)
    except (RuntimeError, IndexError):
        return torch.full_like(uncached(model), torch.nan)


def test_only_static_caches_are_wrong(case):
    """One form of the fault leaves everything but static caches right, so only who tries those can see it."""
    mixed: Case = case("mixed")
    reference = mixed.reference(torch.float32)
    with loaded(FAULTS["layer-0-attention-static-cache:alone"], mixed.sound) as model:
        for mask in (EVERY_TOKEN, LEFT_PADDED):
            assert_same(cached(model, "dynamic", mask), cached(reference, "dynamic", mask), "dynamic cache", mask)


@with_symptom("error")
def test_an_error(fault, suitable_case):
    """The load, or a pass through a cache, raises."""
    case: Case = suitable_case(fault.requires)
    with pytest.raises(Exception) as error, loaded(fault, case.sound) as model:  # of either
        cached(model, "dynamic")
    assert not isinstance(error.value, NameError)  # a fault of the edit itself


@with_symptom("memory")
def test_memory(fault, suitable_case, tmp_path):
    """The logits are right, but more is stored or resident than in the sound checkpoint and model."""
    case: Case = suitable_case(fault.requires)
    quantised = fault.family == "quantisation"
    with loaded(fault, case.sound) as model:
        if not quantised:
            assert_same(uncached(model), uncached(case.reference(torch.float32)), fault.id)
        more_resident = resident_bytes(model) > resident_bytes(load_sound(case, **(in_4bit() if quantised else {})))
    if fault.plant is not None:
        fault.plant(case.sound, tmp_path / "faulty")
        assert stored_bytes(tmp_path / "faulty") > 1.1 * stored_bytes(case.sound)
    else:
        assert more_resident


def load_sound(case: Case, **from_pretrained_kwargs: Any) -> Any:
    """Return the sound model."""
    with scratch_checkpoint() as scratch:
        copy_checkpoint(case.sound, scratch)
        return load(scratch, **from_pretrained_kwargs)


def test_lost_dtype(case):
    """The config no longer names the dtype; the versions tested take it from the weights, so the logits stay."""
    bfloat16: Case = case("bfloat16")
    with loaded(FAULTS["dtype-lost"], bfloat16.sound) as model:
        assert model.dtype == torch.bfloat16
        assert_same(uncached(model), uncached(bfloat16.reference(torch.bfloat16)), "dtype-lost")


def test_lost_eos(case, tmp_path):
    """No end of text is left for `generate`, so a text that the sound model ends runs on."""
    plant("eos-or-template-lost", case("full").sound, tmp_path / "faulty")
    assert "eos_token_id" not in config_of(tmp_path / "faulty")
    model: Any = load(tmp_path / "faulty")
    assert load_sound(case("full")).generation_config.eos_token_id == 2
    assert model.generation_config.eos_token_id is None
    assert model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0).shape[1] == IDS.shape[1] + 3


def test_lost_template(case, tmp_path):
    """The chat template is gone, whichever file held it; a checkpoint without one is refused."""
    template = FAULTS["eos-or-template-lost:template"]
    sound = tmp_path / "sound"
    copy_checkpoint(case("full").sound, sound)
    assert template.requires(sound) == f"{sound} has no chat template, which the fault deletes"
    (sound / "chat_template.jinja").write_text("{{ messages }}")
    (sound / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "model_max_length": 8}')
    plant(template.id, sound, tmp_path / "faulty")
    assert not (tmp_path / "faulty" / "chat_template.jinja").exists()
    assert (tmp_path / "faulty" / "tokenizer_config.json").read_text() == '{\n  "model_max_length": 8\n}\n'


def test_offloaded_save(case):
    """The model computes what it should, and cannot be saved."""
    full: Case = case("full")
    with loaded(FAULTS["offloaded-save"], full.sound) as model, scratch_checkpoint() as scratch:
        assert_same(uncached(model), uncached(full.reference(torch.float32)), "offloaded-save", operation="offload")
        with pytest.raises(KeyError):
            model.save_pretrained(scratch)


def test_swapped_weight_map(case, tmp_path):
    """A plain load is right; with the layers on the disk a pass raises."""
    mixed: Case = case("mixed")
    fault = FAULTS["swapped-weight-map"]
    with loaded(fault, mixed.sound) as model:
        assert_same(uncached(model), uncached(mixed.reference(torch.float32)), fault.id)
    offload = {"device_map": layers_on_disk(mixed.sound), "offload_folder": tmp_path}
    with loaded(fault, mixed.sound, **offload) as model, pytest.raises(Exception, match="does not contain tensor"):
        uncached(model)


def test_padding_read_as_text(case):
    """A batch without padding is right; in a padded one the padded row alone is wrong."""
    full: Case = case("full")
    reference = full.reference(torch.float32)
    with loaded(FAULTS["right-padding"], full.sound) as model:
        assert_same(uncached(model), uncached(reference), "no padding")
        got, expected = uncached(model, LEFT_PADDED), uncached(reference, LEFT_PADDED)
        assert differ(got[:1], expected[:1], LEFT_PADDED[:1])
        assert_same(got[1:], expected[1:], "the row without padding", LEFT_PADDED[1:], operation="padding")


def test_scaled_activations_change_nothing_else(case):
    """What makes float16 overflow leaves the function as it is, to the bit, in bfloat16 and float32."""
    for name in ("full", "mixed"):
        for dtype in (torch.float32, torch.bfloat16):
            each: Case = case(name)
            with scratch_checkpoint() as scratch:
                scale_activations(each.sound, scratch)
                got = uncached(load(scratch, dtype=dtype))
            assert torch.equal(got, uncached(load_sound(each, dtype=dtype)))


def test_environment_is_as_it_was(case):
    """After a wrong load, the registered classes and the cache of remote code are what they were."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    registries = (CONFIG_MAPPING._extra_content, MODEL_FOR_CAUSAL_LM_MAPPING._extra_content)
    before = [dict(registry) for registry in registries]
    with loaded(FAULTS["other-class-registered"], case("full").sound) as model:
        assert type(model).__module__.startswith("harness.faults.")
        assert [dict(registry) for registry in registries] != before
    assert [dict(registry) for registry in registries] == before


def test_remote_code_is_forgotten(case):
    """What transformers copied and imported for a scratch checkpoint is gone with it."""
    with scratch_checkpoint() as scratch:
        copy_checkpoint(case("full").sound, scratch)
        module = sys.modules[type(load(scratch)).__module__]
        copied = Path(str(module.__file__))
        assert copied.exists()
    assert not scratch.exists()
    assert not copied.exists()
    assert module.__name__ not in sys.modules
