"""The judge's own matcher of keys: what it takes for a sub-layer, and what it sees where the pruner's is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pruning.files.source
import pruning.prune
import pruning.state_dict
from harness.subject.sublayer_keys import sublayer_of
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, SubLayer, prune_checkpoint
from tests.harness.checks.cases import Case, judge, told

PLAN = PrunePlan(self_attn=(1,), mlp=(1,))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", SubLayer(0, "self_attn")),
        ("model.layers.12.mlp.up_proj.weight", SubLayer(12, "mlp")),
        ("layers.3.mlp.experts.5.w1.weight", SubLayer(3, "mlp")),
        ("model.layers.1.self_attn.q_norm.weight", SubLayer(1, "self_attn")),
        ("model.layers.10.self_attn.q_norm.weight", SubLayer(10, "self_attn")),
        ("model.layers.3.input_layernorm.weight", None),
        ("model.layers.3.mlp", None),
        ("model.layers.3.mlp.", None),
        ("model.layers.3.mlpx.weight", None),
        ("model.layers.03.mlp.weight", None),
        ("model.layers.٣.mlp.weight", None),
        ("model.layers.-1.mlp.weight", None),
        (f"model.layers.{'1' * 5000}.mlp.weight", None),
        ("_orig_mod.model.layers.3.mlp.weight", None),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
        ("", None),
    ],
)
def test_sublayer_of(key: str, expected: SubLayer | None) -> None:
    """A key's sub-layer and layer are those under which the stock model would have it."""
    assert sublayer_of(key) == expected


def longer_numbers_too(key: str) -> SubLayer | None:
    """Take `layers.10` for `layers.1`, as a matcher that looks for the beginning of a key does."""
    layer, _, rest = key.removeprefix("model.layers.").partition(".")
    name = rest.partition(".")[0]
    return SubLayer(int(layer[:1]), name) if name in ("self_attn", "mlp") else None


def head_norms_too(key: str, plan: PrunePlan) -> bool:
    """Take the norms of q and k of every layer for pruned, as a plan of suffixes does."""
    return "q_norm" in key or "k_norm" in key or pruning.state_dict.is_pruned(key, plan)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpruned checkpoint of twelve layers."""
    spec = TinySpec(layers=12, hidden_size=16, heads=2, key_value_heads=1, head_dim=8, intermediate_size=16)
    return write_tiny_checkpoint(spec, tmp_path_factory.mktemp("base"))


def break_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pruner mix up layers."""
    monkeypatch.setattr(pruning.state_dict, "sublayer_of", longer_numbers_too)


def break_the_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pruner drop too much of every layer."""
    for module in (pruning.prune, pruning.files.source):
        monkeypatch.setattr(module, "is_pruned", head_norms_too)


@pytest.mark.parametrize(
    ("breaks", "first"),
    [(break_the_numbers, "model.layers.10.mlp.down_proj.weight"), (break_the_norms, "model.layers.0.self_attn.k_norm")],
    ids=["layers.1-matches-layers.10", "q_norm-and-k_norm"],
)
def test_a_pruner_with_a_wrong_matcher(
    breaks: Callable[[pytest.MonkeyPatch], None],
    first: str,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a pruner drops by a wrong matcher is told as lost, also while the pruner itself still uses that matcher."""
    pruned = tmp_path / "pruned"
    with monkeypatch.context() as broken:
        breaks(broken)
        prune_checkpoint(base, pruned, PLAN, sync=False)
        report = judge(Case(base, pruned, PLAN), keyword="stored")
    assert [fault.id for fault in report.faults] == ["kept-keys-lost"], told(report)
    assert any(first in line for line in report.faults[0].evidence), report.faults


def test_a_pruner_with_a_right_matcher(base: Path, tmp_path: Path) -> None:
    """The same plan carried out right has no fault in what is stored."""
    prune_checkpoint(base, tmp_path / "pruned", PLAN, sync=False)
    report = judge(Case(base, tmp_path / "pruned", PLAN), keyword="stored")
    assert report.faults == (), told(report)
