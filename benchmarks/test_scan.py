"""The scan: removals evaluated together, beside one full evaluation of each, and beside the bound for that."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn.functional import log_softmax

from benchmarks.interleaved import interleaved
from benchmarks.record import Amount, Figures, Ratio
from harness.planning.sweep.evaluation import Evaluator
from harness.real_checkpoint.cache import real_checkpoint_path
from harness.reference.models import load_stock, without_sublayers
from harness.system.libraries import quiet_libraries
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan

TOKENS = 128
SPEC = TinySpec(
    layers=12, hidden_size=512, intermediate_size=1536, heads=8, key_value_heads=4, head_dim=64, vocabulary_size=8192
)


class Work(NamedTuple):
    """A model, a window of text, int64 (1, tokens), and every removal."""

    model: Any
    ids: Tensor
    removals: list[PrunePlan]


@pytest.fixture(scope="module", params=["synthetic", "real"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Yield a synthetic model, and the real one."""
    is_real = request.param == "real"
    root: Path = (
        real_checkpoint_path() if is_real else write_tiny_checkpoint(SPEC, tmp_path_factory.mktemp("scan") / "base")
    )
    with quiet_libraries():
        model: Any = load_stock(root, dtype=torch.float32)
    layers, vocabulary = model.config.num_hidden_layers, model.config.vocab_size
    ids = torch.randint(0, vocabulary, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    each = [(index,) for index in range(layers)]
    removals = [*(PrunePlan(at, ()) for at in each), *(PrunePlan((), at) for at in each)]
    with torch.inference_mode():
        yield Work(model, ids, [*removals, *(PrunePlan(at, at) for at in each)])


class Plain:
    """The stock model, one evaluation after the other, and its pieces by themselves."""

    def __init__(self, work: Work) -> None:
        self.model, self.ids, self.removals = work
        self.full_logits = self._logits()
        self.full = log_softmax(self.full_logits, dim=-1)
        self.likely = self.full.exp()
        self.most_likely = self.full_logits.argmax(-1)
        self.hidden = self.model.model(input_ids=self.ids, use_cache=False).last_hidden_state
        positions = torch.arange(TOKENS)[None]
        self.rotations = self.model.model.rotary_emb(self.hidden, positions)

    def one_full(self) -> tuple[Tensor, ...]:
        """Evaluate the model once, head and metrics included."""
        return self._metrics(self._logits())

    def one_each(self) -> list[tuple[Tensor, ...]]:
        """Evaluate every removal by itself."""
        found = []
        for plan in self.removals:
            with without_sublayers(self.model, plan.self_attn, plan.mlp):
                found.append(self.one_full())
        return found

    def head(self) -> Tensor:
        """Run the head alone."""
        logits: Tensor = self.model.lm_head(self.model.model.norm(self.hidden)[:, :-1])
        return logits

    def metrics(self) -> tuple[Tensor, ...]:
        """Compare logits that are there."""
        return self._metrics(self.full_logits)

    def what_remains(self) -> None:
        """Run, for every removal, what comes after what it removes."""
        for plan in self.removals:
            (index,) = {*plan.self_attn, *plan.mlp}
            hidden = self.hidden
            layers = self.model.model.layers
            if not plan.mlp:
                hidden = hidden + layers[index].mlp(layers[index].post_attention_layernorm(hidden))
            for layer in layers[index + 1 :]:
                hidden = layer(hidden, attention_mask=None, position_embeddings=self.rotations)

    def _logits(self) -> Tensor:
        logits: Tensor = self.model(input_ids=self.ids, use_cache=False).logits[:, :-1]
        return logits

    def _metrics(self, logits: Tensor) -> tuple[Tensor, ...]:
        log_likely = log_softmax(logits, dim=-1)
        nll = -log_likely.gather(-1, self.ids[:, 1:, None])[..., 0]
        kl = (self.likely * (self.full - log_likely)).sum(-1)
        return nll, kl, logits.argmax(-1) != self.most_likely


def test_scan(benchmark: BenchmarkFixture, figures: Figures, rounds: int, work: Work) -> None:
    """Every removal, together and one by one, comes to the same; the speed-up stands beside its bound."""
    plain, evaluator = Plain(work), Evaluator(work.model, work.ids)
    is_real = work.model.config.num_hidden_layers != SPEC.layers
    name = "the real checkpoint" if is_real else "synthetic"
    figures.subject = (
        f"Every removal of a sub-layer or layer, on {TOKENS} tokens, in float32, {torch.get_num_threads()} threads: "
        f"{SPEC.layers} layers of hidden size {SPEC.hidden_size} with a vocabulary of {SPEC.vocabulary_size}, and the "
        "real checkpoint, 30 layers of 576 with one of 49152."
    )
    together = evaluator.without(work.removals)
    for (nll, kl, changed), outcome in zip(plain.one_each(), together.values(), strict=True):
        torch.testing.assert_close(outcome.nll, nll, rtol=0, atol=2e-3)
        torch.testing.assert_close(outcome.kl, kl, rtol=0, atol=2e-3)
        assert outcome.changed is not None
        assert (outcome.changed.bool() != changed).float().mean() < 0.01
    # What takes milliseconds is measured several times over.
    pieces: dict[str, tuple[Callable[[], object], int]] = {
        "full": (plain.one_full, 6), "head": (plain.head, 20), "metrics": (plain.metrics, 20),
        "remains": (plain.what_remains, 1),
    }  # fmt: skip
    times, theirs = interleaved(
        benchmark,
        lambda: evaluator.without(work.removals),
        {"each": plain.one_each} | {name: _repeated(*piece) for name, piece in pieces.items()},
        prepare=lambda: None,
        rounds=max(1, rounds // 3) if is_real else rounds,
    )
    count = len(work.removals)
    seconds = [[each / piece[1] for each in theirs[name]] for name, piece in pieces.items()]
    bounds = [full / (head + metrics + remains / count) for full, head, metrics, remains in zip(*seconds, strict=True)]
    speed_ups = [count * full / ours for full, ours in zip(seconds[0], times, strict=True)]
    reached = [speed_up / bound for speed_up, bound in zip(speed_ups, bounds, strict=True)]
    figures.add(Ratio.of(f"{count} removals, {name}", "one evaluation each", times, theirs["each"], ""))
    figures.add(Amount.of(f"speed-up over full evaluations, {name}", speed_ups, "times", ""))
    figures.add(Amount.of(f"its bound, {name}", bounds, "times", ""))
    figures.add(Amount.of(f"of which is reached, {name}", reached, "times", "0.9 at least"))


def _repeated(run: Callable[[], object], count: int) -> Callable[[], object]:
    return lambda: [run() for _ in range(count)]
