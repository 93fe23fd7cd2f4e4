"""Cases: a checkpoint and a plan, drawn, written, and told of so that they can be made again."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from harness.strategies import checkpoints
from harness.testing.cases import PrunedCase
from harness.tiny import TinySpec
from pruning import PrunePlan


@settings(max_examples=10, deadline=None)
@given(case=checkpoints(min_layers=2, max_layers=3, min_pruned=1))
def test_checkpoints_are_written_as_they_are_described(
    tmp_path_factory: pytest.TempPathFactory, case: PrunedCase
) -> None:
    """A case writes the base of its spec, and that base pruned by its plan."""
    assert len(case.plan.self_attn) + len(case.plan.mlp) >= 1
    base, pruned = case.write(tmp_path_factory.mktemp("case"))
    stored = json.loads((base / "config.json").read_text(encoding="utf-8"))
    assert stored["num_hidden_layers"] == case.spec.layers
    assert PrunePlan.from_config(json.loads((pruned / "config.json").read_text(encoding="utf-8"))) == case.plan


def test_snippet_makes_the_case_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case's repr makes an equal one, and its snippet, pasted, the same bytes and the loaded model."""
    case = PrunedCase(TinySpec(layers=2, layer_types=("sliding_attention", "full_attention")), PrunePlan(mlp=(1,)))
    assert eval(repr(case)) == case
    _, written = case.write(tmp_path / "written")
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path / "pasted"))
    names: dict[str, Any] = {}
    exec(case.snippet(), names)
    assert names["case"] == case
    assert PrunePlan.from_config(names["model"].config.to_dict()) == case.plan
    for path in written.iterdir():
        assert path.read_bytes() == (names["pruned"] / path.name).read_bytes()


FAILING_TEST = """
from hypothesis import given, settings
from harness.strategies import checkpoints

@settings(database=None, derandomize=True, print_blob=False)
@given(case=checkpoints(max_layers=3))
def test_case(case):
    assert 1 not in case.plan.mlp
"""


def test_failing_case_is_printed(pytester: pytest.Pytester) -> None:
    """A test that fails prints the smallest plan, its configuration, and Python that makes exactly this case."""
    pytester.makepyfile(FAILING_TEST)
    text = pytester.runpytest_subprocess("-p", "no:cacheprovider").stdout.str()
    # Those of the failure itself: where CI is set, pytest's summary repeats the whole message.
    lines = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E")]
    assert "plan: mlp 1" in lines
    (configuration,) = (line for line in lines if line.startswith("configuration: "))
    config = eval(configuration.removeprefix("configuration: "))
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (2, 1)
    start, end = lines.index("from pathlib import Path"), lines.index("model = load_pruned(pruned)")
    compile("\n".join(lines[start : end + 1]), "snippet", "exec")
    (assigned,) = (line for line in lines[start:end] if line.startswith("case = "))
    case = eval(assigned.removeprefix("case = "))
    assert case.plan == PrunePlan(mlp=(1,))
    assert case.spec.layers == 2
