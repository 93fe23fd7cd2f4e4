"""The plugin's fixtures in people's own tests."""

from pathlib import Path

import pytest

from pruning import PrunePlan
from tests.plugin.conftest import Pair

TESTS = """
import torch

from harness import assert_same_logits
from harness.tiny import TinySpec
from pruning import PrunePlan, PrunedQwen3ForCausalLM

IDS = torch.tensor([[5, 9, 33, 2]])


def test_model(pruned_model, pruned_reference):
    assert type(pruned_model).__name__ == "PrunedQwen3ForCausalLM"
    assert pruned_model.dtype == pruned_reference.dtype == torch.float32
    assert not pruned_model.training
    assert_same_logits(pruned_model, pruned_reference, IDS)


def test_reference_again(pruned_model, pruned_reference):
    assert_same_logits(pruned_model, pruned_reference, IDS)


def test_tokenizer(pruned_tokenizer):
    assert pruned_tokenizer("two words")["input_ids"] == [3, 4]


def test_plan(prune_plan):
    assert prune_plan == PrunePlan(self_attn=(0,), mlp=(1,))


def test_directories(pruned_checkpoint, base_checkpoint):
    assert (pruned_checkpoint / "pruning.json").is_file()
    assert not (base_checkpoint / "pruning.json").exists()


def test_tiny(tiny_checkpoints, prune_plan):
    base, pruned = tiny_checkpoints()
    assert tiny_checkpoints() == (base, pruned)
    assert (base / "config.json").is_file() and (pruned / "pruning.json").is_file()
    other = tiny_checkpoints(TinySpec(layers=2), prune_plan)
    assert other != (base, pruned)
    assert tiny_checkpoints(TinySpec(layers=2), prune_plan) == other
"""


def test_fixtures_of_a_sound_checkpoint(pytester: pytest.Pytester, with_tokenizer: Pair) -> None:
    """Model, reference, tokenizer, plan and directories are those of the options; tiny checkpoints are made once."""
    pytester.makepyfile(TESTS)
    base, pruned = with_tokenizer
    options = (f"--prunecheck-pruned={pruned}", f"--prunecheck-base={base}")
    result = pytester.runpytest_subprocess("-W", "error", *options)
    result.assert_outcomes(passed=6)


@pytest.mark.newest
def test_what_is_missing(pytester: pytest.Pytester, foreign: Path) -> None:
    """Where there is no tokenizer a test is skipped; a model whose code may not run names the option that lets it."""
    pytester.makepyfile(
        "def test_tokenizer(pruned_tokenizer):\n    pass\ndef test_model(pruned_model):\n    pass\n",
    )
    result = pytester.runpytest_subprocess("-rsE", f"--prunecheck-pruned={foreign}")
    result.assert_outcomes(skipped=1, errors=1)
    result.stdout.fnmatch_lines([f"SKIPPED * {foreign} has no tokenizer"])
    _, _, errors = result.stdout.str().partition("ERROR at setup of test_model")
    assert errors.splitlines()[1] == (
        "the checkpoint's own code may not run: allow it with --prunecheck-trust-remote-code"
    )
    assert errors.splitlines()[2].startswith("=")


def test_trusted_code_and_meant_plan(pytester: pytest.Pytester, sound: Pair, foreign: Path) -> None:
    """The class is the checkpoint's own where its code is trusted, and the plan is that of `--prunecheck-plan`."""
    pytester.makepyfile(
        "def test_model(pruned_model):\n    assert type(pruned_model).__name__ == 'SkippingQwen3ForCausalLM'\n"
        "def test_plan(prune_plan):\n    assert prune_plan.to_dict() == {'self_attn': [1], 'mlp': []}\n"
    )
    PrunePlan(self_attn=(1,)).to_file(pytester.path / "plan.json")
    options = (f"--prunecheck-pruned={foreign}", f"--prunecheck-base={sound[0]}", "--prunecheck-trust-remote-code")
    pytester.runpytest_subprocess(*options, "--prunecheck-plan=plan.json").assert_outcomes(passed=2)


@pytest.mark.newest
def test_what_does_not_load(pytester: pytest.Pytester, sound: Pair) -> None:
    """A base that is none is told of in one line, for every test that would need it."""
    pytester.makepyfile("def test_model(pruned_model):\n    pass\ndef test_plan(prune_plan):\n    pass\n")
    pruned = sound[1]
    result = pytester.runpytest_subprocess(f"--prunecheck-pruned={pruned}", f"--prunecheck-base={pruned}")
    result.assert_outcomes(errors=2)
    lines = result.stdout.str().splitlines()
    assert sum(line.startswith(f"the base {pruned} lacks 15 tensor(s), first ") for line in lines) == 2
    assert not [line for line in lines if "subject.py" in line]
