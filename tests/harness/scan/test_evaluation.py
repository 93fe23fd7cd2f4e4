"""Removals that are evaluated together come out as each does alone."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.errors import CannotRun
from harness.models.modes import LoadingMode
from harness.planning.sweep.evaluation import Evaluator
from harness.planning.sweep.outcomes import Outcome
from harness.reference.models import load_stock, reference_logits, without_sublayers
from harness.reference.tolerances import tolerance
from harness.strategies import plans, tiny_specs, token_batches
from harness.system.libraries import quiet_libraries
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, SubLayer, load_pruned, prune_checkpoint
from pruning.plan import sublayers_of


def every_removal(layers: int) -> list[PrunePlan]:
    """Return each self_attn, mlp and whole layer."""
    indexes = [(index,) for index in range(layers)]
    return [
        *(PrunePlan(self_attn=index) for index in indexes),
        *(PrunePlan(mlp=index) for index in indexes),
        *(PrunePlan(index, index) for index in indexes),
    ]


def evaluated_alone(model: Any, ids: Tensor, plan: PrunePlan) -> tuple[Tensor, Tensor, float]:
    """Return log probabilities (windows, tokens - 1, vocabulary), those of the full model, and the largest logit."""
    full = reference_logits(model, ids)
    with without_sublayers(model, plan.self_attn, plan.mlp):
        logits = reference_logits(model, ids)
    largest = max(float(each.abs().max()) for each in (full, logits))
    return logits.log_softmax(-1)[:, :-1], full.log_softmax(-1)[:, :-1], largest


def assert_same(outcome: Outcome, model: Any, ids: Tensor, plan: PrunePlan, dtype: str) -> None:
    """Require what logits within the table's tolerance amount to: see the comments."""
    expected, full, largest = evaluated_alone(model, ids, plan)
    off = tolerance(dtype, "reference").relative * largest
    assert outcome.nll is not None
    assert outcome.kl is not None
    assert outcome.changed is not None
    nll = -expected.gather(-1, ids[:, 1:, None])[..., 0]
    # The log of the sum of exponentials moves by no more than its largest term.
    assert (outcome.nll - nll).abs().max() <= 2 * off + 1e-6
    kl = (full.exp() * (full - expected)).sum(-1)
    # Both distributions are off, and the weights of the mean by a factor.
    assert ((outcome.kl - kl).abs() <= 4 * off + 2 * (4 * off) * (full - expected).abs().amax(-1) + 1e-5).all()
    firsts = expected.topk(2).values
    clear = firsts[..., 0] - firsts[..., 1] > 4 * off
    full_firsts = full.topk(2).values
    clear &= full_firsts[..., 0] - full_firsts[..., 1] > 4 * off
    changed = (expected.argmax(-1) != full.argmax(-1)).float()
    assert torch.equal(outcome.changed[clear], changed[clear])


@settings(deadline=None)
@given(data=st.data(), spec=tiny_specs())
def test_same_as_one_evaluation_a_removal(data: st.DataObject, spec: TinySpec) -> None:
    """Any removals, on top of any others, come to what the references say of each alone, however memory splits them."""
    removed = data.draw(plans(spec.layers))
    candidates = [each | removed for each in every_removal(spec.layers)] + data.draw(st.lists(plans(spec.layers)))
    candidates = [each for each in dict.fromkeys(candidates) if not (each - removed).is_empty]
    ids, _ = data.draw(token_batches(spec.vocabulary_size, min_tokens=2, left_padding=False))
    with TemporaryDirectory() as folder, quiet_libraries():
        model = load_stock(write_tiny_checkpoint(spec, Path(folder) / "base"), dtype=getattr(torch, spec.dtype))
        evaluator = Evaluator(model, ids, stream_bytes=data.draw(st.sampled_from((1, 20_000, 2**20))))
        outcomes = evaluator.without(candidates, removed)
        assert list(outcomes) == candidates
        for plan, outcome in outcomes.items():
            assert_same(outcome, model, ids, plan | removed, spec.dtype)
        assert_same(evaluator.full, model, ids, PrunePlan(), spec.dtype)


@pytest.mark.parametrize("place", ["auto", "disk-beside", "disk-inside", "disk-all"])
def test_wherever_the_weights_lie(tmp_path: Path, place: str) -> None:
    """A pruned checkpoint whose weights are brought in from elsewhere gives what the base gives without the plan."""
    spec, plan = TinySpec(layer_types="mixed", tied=False), PrunePlan(self_attn=(0, 2), mlp=(1, 2))
    base = write_tiny_checkpoint(spec, tmp_path / "base")
    prune_checkpoint(base, tmp_path / "pruned", plan, sync=False)
    ids = torch.randint(0, spec.vocabulary_size, (2, 11), generator=torch.Generator().manual_seed(0))
    candidates = [PrunePlan(self_attn=(1,)), PrunePlan(mlp=(0,)), PrunePlan((3,), (3,))]
    with quiet_libraries():
        arguments = LoadingMode(place, "float32").arguments(spec.layers, plan, tmp_path / "offloaded")
        pruned = load_pruned(tmp_path / "pruned", **arguments)
        evaluator = Evaluator(pruned, ids, predictions=("nll",))
        outcomes = evaluator.without(candidates)
        assert evaluator.pruned == plan
        expected = Evaluator(load_stock(base), ids, predictions=("nll",)).without(candidates, plan)
        again = Evaluator(pruned, ids, predictions=("nll",)).full.nll  # weights went back to where they came from
    for candidate in candidates:
        got, wanted = outcomes[candidate].nll, expected[candidate].nll
        assert got is not None
        assert wanted is not None
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    assert again is not None
    assert evaluator.full.nll is not None
    assert torch.equal(again, evaluator.full.nll)


def test_what_is_brought_in_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep reads the weights of each layer from the disk once, however many batches its removals make."""
    monkeypatch.setattr("harness.planning.sweep.evaluation._TOKENS_AT_ONCE", 9)
    spec = TinySpec(layers=3)
    base = write_tiny_checkpoint(spec, tmp_path / "base")
    with quiet_libraries():
        arguments = LoadingMode("disk-all", "float32").arguments(3, PrunePlan(), tmp_path / "offloaded")
        model = load_stock(base, **arguments)
    reads: dict[str, int] = {}
    for name, module in model.named_modules():
        hook: Any = getattr(module, "_hf_hook", None)
        if hook is not None and getattr(hook, "weights_map", None) is not None:
            hook.weights_map = _Counting(hook.weights_map, name, reads)
    ids = torch.zeros((2, 9), dtype=torch.int64)
    Evaluator(model, ids).without(every_removal(3))
    assert len(reads) == 3 * 11
    assert set(reads.values()) == {1}


class _Counting:
    """A mapping to weights that counts how often each is asked for."""

    def __init__(self, weights: Any, name: str, reads: dict[str, int]) -> None:
        self._weights, self._name, self._reads = weights, name, reads

    def __getitem__(self, key: str) -> Any:
        self._reads[f"{self._name}.{key}"] = self._reads.get(f"{self._name}.{key}", 0) + 1
        return self._weights[key]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A candidate that removes nothing more, what is pruned already, or a layer beyond the last, is refused."""
    model = load_stock(write_tiny_checkpoint(TinySpec(layers=2), tmp_path / "base"))
    evaluator = Evaluator(model, torch.zeros((1, 4), dtype=torch.int64))
    for candidate, removed in (
        (PrunePlan(), PrunePlan()),
        (PrunePlan(mlp=(1,)), PrunePlan(mlp=(1,))),
        (PrunePlan(mlp=(2,)), PrunePlan()),
    ):
        with pytest.raises(ValueError, match="cannot be removed on top of"):
            evaluator.without([candidate], removed)


def test_logits_that_are_not_finite(tmp_path: Path) -> None:
    """Where removing something leads to NaN the outcome says so; where the model itself does, nothing is compared."""
    model: Any = load_stock(write_tiny_checkpoint(TinySpec(layers=2, tied=False), tmp_path / "base"))
    ids = torch.randint(0, 64, (2, 6), generator=torch.Generator().manual_seed(0))
    healthy = model.model.layers[1].mlp.forward
    calls: list[None] = []

    def overflowing(hidden: Tensor) -> Tensor:  # for all but the first stream, which is the full model's
        calls.append(None)
        update: Tensor = healthy(hidden)
        if hidden.shape[0] > 2:
            update[2:] = torch.inf
        return update

    model.model.layers[1].mlp.forward = overflowing
    outcomes = Evaluator(model, ids).without([PrunePlan(self_attn=(0,)), PrunePlan(mlp=(1,))])
    assert calls
    broken, sound = outcomes.values()
    assert not broken.is_finite
    assert all(bool(values.isnan().all()) for _, values in broken.items())
    assert sound.is_finite
    model.lm_head.weight.data[3] = torch.inf
    with pytest.raises(CannotRun, match="not finite"):
        _ = Evaluator(model, ids).full


def test_without_predictions_no_head_runs(tmp_path: Path) -> None:
    """The head runs only where something that is asked for needs it, and an observer sees every update all the same."""
    model: Any = load_stock(write_tiny_checkpoint(TinySpec(layers=2), tmp_path / "base"))

    def refuse(*_: Any) -> Tensor:
        raise AssertionError("the head ran")

    model.lm_head.forward = refuse
    seen: list[SubLayer] = []
    ids = torch.zeros((1, 4), dtype=torch.int64)
    outcomes = Evaluator(model, ids, predictions=()).without(
        [PrunePlan(mlp=(0,))], observe=lambda sublayer, hidden, update: seen.append(sublayer)
    )
    assert dict(outcomes[PrunePlan(mlp=(0,))].items()) == {}
    assert seen == sublayers_of(2)
