"""A cause shows in many checks, and is told once, by its own name; two causes are both told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import Cache

from harness.faults.planting.code_edits import edit_foreign
from harness.faults.planting.loading import plant_and_load
from harness.system.libraries import quiet_libraries
from tests.harness.checks.cases import WITHOUT_TEXT, Case, judge, judge_model, record, told
from tests.harness.checks.wrong_code import RENAMED, RIGHT, UNFILLED_BUFFER, WRONG

pytestmark = pytest.mark.outermost


@pytest.mark.many_cases
@pytest.mark.parametrize("what", WRONG)
def test_wrong_code_is_told_once(what: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Of code that is wrong one fault is told: a second one that it hides shows once the first is mended."""
    if what == UNFILLED_BUFFER and Version(transformers.__version__) < Version("5.0.0"):
        pytest.skip("before 5.0.0 transformers builds buffers where they belong, so that this one is right")
    edits, families = WRONG[what]
    edit_foreign(*edits)(case("tied").sound, tmp_path / "wrong")
    report = judge(case("tied"), tmp_path / "wrong", keyword=WITHOUT_TEXT)
    assert [fault.family for fault in report.faults] == families, told(report)


@pytest.mark.parametrize("what", RIGHT)
def test_odd_code_is_sound(what: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code that looks like a fault, and computes what it should, is sound."""
    edit_foreign(*RIGHT[what])(case("tied").sound, tmp_path / "odd")
    report = judge(case("tied"), tmp_path / "odd", keyword=WITHOUT_TEXT)
    assert report.verdict == "sound", told(report)


@pytest.mark.newest
def test_names_that_a_mapping_bridges_are_sound(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of another name than in the files, which the load maps to it, is no tensor that is lost."""
    mappings: Any = import_module("transformers.conversion_mapping")
    for name in ("_checkpoint_conversion_mapping_cache", "USER_REGISTERED_MAPPINGS"):
        # What the code registers is gone after the test.
        monkeypatch.setattr(mappings, name, copy(getattr(mappings, name)))
    edit_foreign(*RENAMED)(case("tied").sound, tmp_path / "renamed")
    report = judge(case("tied"), tmp_path / "renamed", keyword=WITHOUT_TEXT)
    assert report.verdict == "sound", told(report)


@contextmanager
def _changed(case: Case, change: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the sound model, loaded in float32, after a change, or what the change makes of it."""
    with quiet_libraries(), plant_and_load(dtype=torch.float32)(case.sound) as model:
        yield change(model) or model


def _ignore_the_mask(model: Any) -> None:
    def ones(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"attention_mask": _all_ones(kwargs.get("attention_mask"))}

    model.model.register_forward_pre_hook(ones, with_kwargs=True)


def _ignore_the_mask_of_steps(model: Any) -> None:
    def ones(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not any(isinstance(each, Cache) and each.get_seq_length() for each in kwargs.values()):
            return args, kwargs
        return args, kwargs | {"attention_mask": _all_ones(kwargs.get("attention_mask"))}

    model.model.register_forward_pre_hook(ones, with_kwargs=True)


def _all_ones(mask: Any) -> Any:
    # What generate hands to a static cache is a mask for each kind of attention, made from what it was given.
    return torch.ones_like(mask) if isinstance(mask, torch.Tensor) and mask.ndim == 2 else mask


def _nan_in_the_buffer(model: Any) -> None:
    model.model.rotary_emb.inv_freq.fill_(torch.nan)


def _half_a_buffer(model: Any) -> None:
    model.model.rotary_emb.half()


def _adapt(name: str, **options: Any) -> Callable[[Any], Any]:
    def attach(model: Any) -> Any:
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, getattr(peft, name)(target_modules=["layers.2.mlp.up_proj"], **options))
        for parameter in adapted.parameters():
            if parameter.requires_grad and not parameter.is_meta:
                parameter.data += 0.1 * torch.randn_like(parameter)
        return adapted.eval()

    return attach


def _prefix(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    return peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()


def _hook_that_adds(model: Any) -> None:
    model.model.layers[2].mlp.register_forward_hook(lambda module, inputs, output: output + 0.1)


def _forward_of_an_instance(model: Any) -> None:
    norm = model.model.norm
    norm.forward = lambda hidden_states: 1.1 * type(norm).forward(norm, hidden_states)


def _hook_that_looks(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda module, inputs, output: None)


def _merged(model: Any) -> Any:
    adapted = _adapt("LoraConfig", r=2)(model)
    adapted.merge_adapter()
    return adapted


LOADED = {
    "mask ignored": (_ignore_the_mask, ["padding"]),
    "mask of steps ignored": (_ignore_the_mask_of_steps, ["padding"]),
    "NaN in a buffer": (_nan_in_the_buffer, ["buffers"]),
    "a buffer in half precision": (_half_a_buffer, ["buffers"]),
    "IA3": (_adapt("IA3Config", feedforward_modules=[]), ["adapter"]),
    "LoHa": (_adapt("LoHaConfig", r=2), ["adapter"]),
    "VeRA": (_adapt("VeraConfig", r=2), ["adapter"]),
    "an adapter that was merged": (_merged, ["adapter"]),
    "prefix tuning": (_prefix, ["adapter"]),
    "a hook that adds": (_hook_that_adds, ["code"]),
    "a forward of an instance": (_forward_of_an_instance, ["code"]),
    "a hook that looks on": (_hook_that_looks, []),
    "a copied head": (_adapt("LoraConfig", r=2, modules_to_save=["embed_tokens"]), ["adapter"]),
}


@pytest.mark.parametrize("what", LOADED)
def test_wrong_load_is_told_once(what: str, case: Callable[[str], Case]) -> None:
    """Of a model that was changed in one way after the load one fault is told, and none if it computes the same."""
    change, families = LOADED[what]
    with _changed(case("tied"), change) as model:
        report = judge_model(model, case("tied"), WITHOUT_TEXT)
    assert [fault.family for fault in report.faults] == families, told(report)


def test_layers_that_are_not_there(case: Callable[[str], Case]) -> None:
    """A model that lacks layers of the plan cannot be poisoned, and says so."""

    def cut(model: Any) -> None:
        model.model.layers = model.model.layers[:1]

    with _changed(case("tied"), cut) as model:
        report = judge_model(model, case("tied"), "poison")
    assert record(report, "given-float32.poison").reason == "the model lacks layers that the plan prunes"
