"""Assertions for people's own tests: silent on what is sound, and plain about what is not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import harness
from harness.faults import FAULTS, plant
from harness.reference.models import identity_reference
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, load_pruned

Pair = tuple[Path, Path]
IDS = torch.tensor([[0, 5, 9, 33, 2], [7, 8, 41, 3, 60]])
MASK = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
SMALL: dict[str, Any] = {"device_map": ("plain",), "dtype": ("float32",), "quantisation": ()}
# The grammar of every failure that compares numbers.
GRAMMAR = re.compile(r"^logits\[\d+, \d+, \d+\]=\S+, but should be \S+ \[(.*)\]: .* of the logits are off, .*\)$")
LAYER_0 = PrunePlan(self_attn=(0,))


@pytest.fixture(scope="module")
def sound(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture(scope="module")
def faulty(sound: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that lacks keys which its plan keeps."""
    directory = tmp_path_factory.mktemp("faulty") / "faulty"
    plant("kept-keys-lost", sound[1], directory)
    return directory


@pytest.fixture(scope="module")
def model(sound: Pair) -> Any:
    """The sound checkpoint, loaded."""
    with quiet_libraries():
        return load_pruned(sound[1])


def failure(assertion: Callable[[], object]) -> str:
    """Return the message with which an assertion fails; pytest must show no frame of `harness` for it."""
    with pytest.raises(AssertionError) as raised:
        assertion()
    shown = raised.traceback.filter(raised)
    assert {Path(entry.path) for entry in shown} == {Path(__file__)}
    return str(raised.value)


def test_sound_checkpoint(sound: Pair, faulty: Path) -> None:
    """`assert_sound` gives the report, or says which fault there is, what was seen and what to do."""
    keyword = "stored or load or identity.random"
    report = harness.assert_sound(sound[1], base=sound[0], keyword=keyword, **SMALL)
    assert report.verdict == "sound"
    message = failure(lambda: harness.assert_sound(faulty, base=sound[0], keyword="stored", **SMALL))
    first, fault, *evidence, remedy = message.splitlines()
    plan = "{'self_attn': [1, 2], 'mlp': [1]}"
    assert first == f"{faulty} is faulty, but should be sound [base={sound[0]}, plan={plan}]"
    assert fault.startswith("  keys: 4 key(s) that the plan (self_attn 1-2, mlp 1, from pruning.json) keeps are not")
    assert evidence[0].startswith("    missing: model.layers.0.self_attn.k_norm.weight, ")
    assert remedy.startswith("    Prune the base again with prunecheck.")


def test_undecided_checkpoint(sound: Pair) -> None:
    """Where too little could be checked, `assert_sound` fails, too, and says what and why, unless that is allowed."""
    chosen: dict[str, Any] = {"keyword": "bytes or keys", **SMALL}
    message = failure(lambda: harness.assert_sound(sound[1], **chosen))
    assert message.splitlines()[0].endswith(" is undecided, but should be sound [base=None, plan=" + (
        "{'self_attn': [1, 2], 'mlp': [1]}]"
    ))  # fmt: skip
    reason = "  not checked: stored.base-bytes: without --base there is nothing to compare the bytes with"
    assert reason in message.splitlines()
    assert harness.assert_sound(sound[1], allow_partial=True, **chosen).verdict == "sound"


def test_sound_model(sound: Pair, model: Any) -> None:
    """`assert_model_sound` gives the report of a right load, and names the fault of a wrong one."""
    keyword = "stored or given-float32.load or called or identity.random"
    where: dict[str, Any] = {"checkpoint": sound[1], "base": sound[0], "keyword": keyword}
    assert harness.assert_model_sound(model, **where).verdict == "sound"
    with quiet_libraries(), FAULTS["trust-remote-code-omitted"].load(sound[1]) as wrong:  # type: ignore[misc]
        message = failure(lambda: harness.assert_model_sound(wrong, **where))
    assert message.startswith(f"{sound[1]} is faulty, but should be sound [base={sound[0]}, plan=")
    assert "Qwen3ForCausalLM" in message


def test_stored_as_planned(sound: Pair, faulty: Path) -> None:
    """`assert_stored_as_planned` names the first tensor that is missing, superfluous or changed, and the call."""
    base, pruned = sound
    harness.assert_stored_as_planned(pruned, base, self_attn=[1, 2], mlp=[1])
    harness.assert_stored_as_planned(str(base), str(base))
    called = f"[checkpoint={str(faulty)!r}, base={str(base)!r}, self_attn=[1, 2], mlp=[1]]"
    message = failure(lambda: harness.assert_stored_as_planned(faulty, base, self_attn=[1, 2], mlp=[1]))
    assert message == f"model.layers.0.self_attn.k_norm.weight is missing {called}"
    message = failure(lambda: harness.assert_stored_as_planned(base, base, mlp=[1]))
    assert message == (
        "model.layers.1.mlp.down_proj.weight is stored, but should not be "
        f"[checkpoint={str(base)!r}, base={str(base)!r}, self_attn=[], mlp=[1]]"
    )


def test_stored_nowhere(sound: Pair, tmp_path: Path) -> None:
    """A directory without tensors, or none, is an error: comparing nothing with nothing must not pass."""
    for checkpoint, base in ((tmp_path, tmp_path / "nowhere"), (tmp_path, sound[0]), (sound[1], tmp_path)):
        with pytest.raises(harness.CannotRun) as raised:
            harness.assert_stored_as_planned(checkpoint, base)
        wrong = tmp_path
        assert str(raised.value) == f"{wrong} holds no tensors: name a directory with *.safetensors files"


def test_same_logits(sound: Pair, model: Any) -> None:
    """`assert_same_logits` passes on the reference, padded or not, and names the logit that is off on another model."""
    reference = identity_reference(sound[0], (1, 2), (1,))
    harness.assert_same_logits(model, reference, IDS)
    harness.assert_same_logits(model, reference, IDS, MASK)
    whole = identity_reference(sound[0], (), ())
    matched = GRAMMAR.match(failure(lambda: harness.assert_same_logits(model, whole, IDS)))
    assert matched
    assert matched[1] == "PrunedQwen3ForCausalLM, torch.float32, cpu, batch [2, 5], against Qwen3ForCausalLM"


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_cache_agrees(kind: str, model: Any) -> None:
    """`assert_cache_agrees` passes on a sound model for every split, padded or not."""
    for prefill in (1, 3, 5):
        harness.assert_cache_agrees(model, IDS, MASK, kind=kind, prefill=prefill)
    harness.assert_cache_agrees(model, IDS, kind=kind)


def test_cache_disagrees(tiny_checkpoints: Callable[..., Pair]) -> None:
    """A model whose cache loses count fails, with the logit that is off, the cache and the split."""
    _, pruned = tiny_checkpoints(None, LAYER_0)
    load = FAULTS["layer-0-attention-chunked-prefill"].load
    assert load is not None
    with quiet_libraries(), load(pruned) as wrong:
        matched = GRAMMAR.match(failure(lambda: harness.assert_cache_agrees(wrong, IDS, prefill=2)))
    assert matched
    expected = "torch.float32, cpu, batch [2, 5], dynamic cache, prefill 2, then one token at a time"
    assert matched[1] == f"SkippingQwen3ForCausalLM, {expected}"


def test_impossible_cache(model: Any) -> None:
    """A kind of cache that there is not, or a prefill of more tokens than there are, is refused as it was given."""
    for wrong in ({"kind": "paged"}, {"prefill": 6}, {"prefill": 0}):
        with pytest.raises(ValueError) as raised:
            harness.assert_cache_agrees(model, IDS, **wrong)  # type: ignore[arg-type]
        given = {"kind": "dynamic", "prefill": 1} | wrong
        assert str(raised.value) == (
            "kind must be one of ['dynamic', 'static'] and prefill in 1 to 5, "
            f"but got kind={given['kind']!r}, prefill={given['prefill']}"
        )


def test_logits_close() -> None:
    """`assert_logits_close`, for computations of one's own, is the one that the table of tolerances belongs to."""
    logits = torch.linspace(-1, 1, 12).reshape(1, 3, 4)
    how: dict[str, Any] = {"dtype": "float32", "operation": "reference", "context": "mine"}
    harness.assert_logits_close(logits, logits.clone(), **how)
    matched = GRAMMAR.match(failure(lambda: harness.assert_logits_close(logits + 0.5, logits, **how)))
    assert matched
    assert matched[1] == "mine"
