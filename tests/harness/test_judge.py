"""Judging a checkpoint and a model that is loaded: the verdict, the record, and what is left as it was."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import CannotRun, Report, check_checkpoint, check_model
from harness.faults import FAULTS, plant
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, load_pruned

Pair = tuple[Path, Path]
SMALL: dict[str, Any] = {"device_map": ("plain",), "dtype": ("float32",), "quantisation": ()}


@pytest.fixture(scope="module")
def sound(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture(scope="module")
def report(sound: Pair) -> Report:
    """The judgement of a sound checkpoint."""
    return check_checkpoint(sound[1], base=sound[0], **SMALL)


def test_sound(report: Report, sound: Pair) -> None:
    """A sound checkpoint is judged sound: by keys, bytes and logits, in the way of loading that was asked for."""
    assert report.verdict == "sound"
    assert report.coverage.is_complete
    assert report.coverage.bytes == "base"
    assert (report.checkpoint, report.base) == (str(sound[1]), str(sound[0]))
    assert report.plan == {"self_attn": [1, 2], "mlp": [1]}
    assert {check.name.partition(".")[0] for check in report.checks} == {"stored", "plain-float32"}
    assert report.faults == ()
    assert report.environment["options"]["device_map"] == ["plain"]


def test_report_is_frozen(report: Report) -> None:
    """No part of a report can be set."""
    for record in (report, report.checks[0], report.coverage):
        with pytest.raises(FrozenInstanceError):
            record.numbers = {}  # type: ignore[union-attr]


def test_report_is_json(report: Report, sound: Pair, tmp_path: Path) -> None:
    """Reports of sound and of faulty checkpoints are JSON, without NaN, and are read back as they were."""
    plant("kept-keys-lost", sound[1], tmp_path / "faulty")
    faulty = check_checkpoint(tmp_path / "faulty", base=sound[0], keyword="stored or load", **SMALL)
    assert faulty.verdict == "faulty"
    assert {fault.family for fault in faulty.faults} == {"keys"}
    for each in (report, faulty):
        text = json.dumps(each.to_dict(), allow_nan=False)
        assert json.loads(text)["schema"] == 2
        assert Report.from_dict(json.loads(text)) == each


def test_keyword_and_partial(sound: Pair) -> None:
    """A part of the checks leaves the verdict undecided, unless that is allowed; progress is told before each."""
    told: list[tuple[int, int, str]] = []
    report = check_checkpoint(
        sound[1], keyword="keys or plan", progress=lambda *step: told.append(step), **{**SMALL, "dtype": ()}
    )
    assert [check.name for check in report.checks] == ["stored.plan", "stored.keys"]
    assert told == [(0, 2, "stored.plan"), (1, 2, "stored.keys")]
    assert report.verdict == "undecided"
    assert check_checkpoint(sound[1], keyword="keys", allow_partial=True, **SMALL).verdict == "sound"


def test_wrong_plan(sound: Pair) -> None:
    """A plan other than that of the checkpoint is a fault of the checkpoint."""
    plan = PrunePlan(self_attn=(1,), mlp=(1,))
    report = check_checkpoint(sound[1], base=sound[0], plan=plan, keyword="stored", **SMALL)
    assert report.verdict == "faulty"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keyword": "("}, "-k '(' is no expression: "),
        ({"keyword": "moon"}, "no check has a name that matches 'moon'"),
        ({"device_map": ("moon",)}, "--device-map moon is unknown: "),
        ({"base": "nowhere"}, "the base nowhere does not exist: "),
    ],
)
def test_cannot_run(sound: Pair, arguments: dict[str, Any], message: str) -> None:
    """What cannot be judged as it was asked for is refused in one line."""
    with pytest.raises(CannotRun) as raised:
        check_checkpoint(sound[1], **arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_model_loaded_wrongly(sound: Pair) -> None:
    """A model that was loaded without its code is faulty, though its checkpoint is sound, and the cause is named."""
    with quiet_libraries(), FAULTS["trust-remote-code-omitted"].load(sound[1]) as model:  # type: ignore[misc]
        report = check_model(model, checkpoint=sound[1], base=sound[0])
    assert report.verdict == "faulty"
    assert [fault.family for fault in report.faults] == ["class"]
    assert "trust_remote_code=True" in report.faults[0].remedy
    failed = {check.name.partition(".")[0] for check in report.checks if check.outcome == "failed"}
    assert failed == {"given-float32"}


def state(model: Any) -> dict[str, Any]:
    """Return what a judgement must leave alone, by what it is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = dict(model.named_modules())
    return {
        "training": {name: module.training for name, module in modules.items()},
        "classes": {name: type(module) for name, module in modules.items()},
        "hooks": {name: [list(getattr(module, hook)) for hook in hooks] for name, module in modules.items()},
        "own methods": {name: "forward" in vars(module) for name, module in modules.items()},
        "gradients wanted": {name: tensor.requires_grad for name, tensor in model.named_parameters()},
        "gradients": {name: None if t.grad is None else t.grad.tolist() for name, t in model.named_parameters()},
        "bytes": {name: tensor.numpy(force=True).tobytes() for name, tensor in model.named_parameters()},
        "buffers": {name: tensor.numpy(force=True).tobytes() for name, tensor in model.named_buffers()},
        "config": model.config.to_dict(),
        "generation config": model.generation_config.to_dict(),
        "random numbers": torch.get_rng_state().tolist(),
    }


def test_model_is_left_as_it_was(sound: Pair) -> None:
    """A rightly loaded model is sound, and is left as it was: also one that is half trained, and hooked."""
    with quiet_libraries():
        model = load_pruned(sound[1])
    model.train()
    model.model.layers[0].eval()
    model.model.embed_tokens.weight.requires_grad_(False)
    model(input_ids=torch.tensor([[5, 9, 33]]), labels=torch.tensor([[5, 9, 33]])).loss.backward()
    model.generation_config.update(max_new_tokens=7, do_sample=True, temperature=0.5)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = state(model)
    report = check_model(model, checkpoint=sound[1], base=sound[0])
    assert report.verdict == "sound", report.faults
    assert calls
    after = state(model)
    for name, value in before.items():
        assert after[name] == value, name


def test_model_is_left_as_it_was_when_judging_fails(sound: Pair) -> None:
    """The way of a model survives an interrupted judgement, too."""
    with quiet_libraries():
        model = load_pruned(sound[1]).train()

    def interrupt(done: int, total: int, name: str) -> None:
        if "called" in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_model(model, checkpoint=sound[1], base=sound[0], progress=interrupt)
    assert model.training
