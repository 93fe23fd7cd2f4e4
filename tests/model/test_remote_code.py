"""A pruned checkpoint's own copy of the code: where prunecheck is not installed, and beside an installed one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version

from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from tests.model.conftest import Checkpoints

SPEC = TinySpec(layers=4, layer_types="mixed", tied=False)
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1, 2))
IDS = torch.arange(5, 17).reshape(2, 6)

# What stands before every program of these tests: prunecheck cannot be imported, as where it is not installed.
NOT_INSTALLED = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pruning", "harness"):
            raise ModuleNotFoundError(name)
import sys
sys.meta_path.insert(0, Absent())
"""
PRELUDE = """
import json, sys, torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM
transformers.utils.logging.disable_progress_bar()
ids = torch.arange(5, 17).reshape(2, 6)
def logits(model):
    with torch.no_grad():
        return model(ids).logits
def where(thing):
    return type(thing).__module__.partition(".")[0]
result = {}
"""


def run(program: str, tmp_path: Path, *, installed: bool) -> dict[str, Any]:
    """Run a program in a fresh process, elsewhere, and return the `result` that it fills."""
    text = ("" if installed else NOT_INSTALLED) + PRELUDE + program + "\nprint('RESULT' + json.dumps(result))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    work = tmp_path / "elsewhere"
    work.mkdir(exist_ok=True)
    finished = subprocess.run(
        [sys.executable, "-P", "-c", text],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    content: dict[str, Any] = json.loads(finished.stdout.rpartition("RESULT")[2])
    return content


def logits_of(path: Path) -> torch.Tensor:
    """The logits that the strict loader's model gives."""
    with torch.no_grad():
        logits: torch.Tensor = load_pruned(path)(IDS).logits
    return logits


def test_where_prunecheck_is_not_installed(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The checkpoint's code needs the flag, gives the same logits to the bit, and saves what loads again."""
    _, pruned = checkpoints(SPEC, PLAN)
    result = run(
        f"""
try:
    import pruning
except ModuleNotFoundError as error:
    result["absent"] = error.args[0]
path, again = {str(pruned)!r}, {str(tmp_path / "saved.v1-again")!r}
result["config"] = type(AutoConfig.from_pretrained(path, trust_remote_code=True)).__name__
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
result["classes"] = [type(model).__name__, type(model.model.layers[0]).__name__, where(model)]
torch.save(logits(model), {str(tmp_path / "logits.pt")!r})
model.save_pretrained(again)
second = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
result["equal again"] = torch.equal(logits(model), logits(second))
result["keys"] = sorted(second.state_dict()) == sorted(model.state_dict())
for name in ("refused by config", "refused by model"):
    try:
        (AutoConfig if "config" in name else AutoModelForCausalLM).from_pretrained(path)
    except ValueError as error:
        result[name] = "trust_remote_code" in str(error)
""",
        tmp_path,
        installed=False,
    )
    assert result == {
        "absent": "pruning",
        "config": "PrunedQwen3Config",
        "classes": ["PrunedQwen3ForCausalLM", "PrunedQwen3DecoderLayer", "transformers_modules"],
        "equal again": True,
        "keys": True,
        "refused by config": True,
        "refused by model": True,
    }
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits_of(pruned))
    assert torch.equal(logits_of(tmp_path / "saved.v1-again"), logits_of(pruned))
    assert not (tmp_path / "saved.v1-again" / "pruning.json").exists()


def test_saved_by_the_installed_class(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """What the installed class saves loads where prunecheck is not installed, and gives the same logits."""
    _, pruned = checkpoints(SPEC, PLAN)
    load_pruned(pruned).save_pretrained(tmp_path / "saved")
    run(
        f"""
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "saved")!r}, trust_remote_code=True)
torch.save(logits(model), {str(tmp_path / "logits.pt")!r})
""",
        tmp_path,
        installed=False,
    )
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits_of(pruned))


def test_two_plans_in_one_process(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Two checkpoints with different plans, loaded by their own code in one process, keep their own plans."""
    other_plan = PrunePlan(self_attn=(3,), mlp=(0,))
    _, first = checkpoints(SPEC, PLAN)
    _, second = checkpoints(SPEC, other_plan)
    result = run(
        f"""
for path in {[str(first), str(second)]!r}:
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    result[path] = [
        [index for index, layer in enumerate(model.model.layers) if getattr(layer, flag)]
        for flag in ("prune_self_attn", "prune_mlp")
    ]
""",
        tmp_path,
        installed=False,
    )
    assert result == {
        str(path): [list(plan.self_attn), list(plan.mlp)] for path, plan in ((first, PLAN), (second, other_plan))
    }


def test_which_copy_wins(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Once our model module is imported, Auto needs no remote code; with the flag, the version decides who wins."""
    _, pruned = checkpoints(SPEC, PLAN)
    result = run(
        f"""
path = {str(pruned)!r}
result["flag, not imported"] = where(AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True))
try:
    AutoModelForCausalLM.from_pretrained(path)
except ValueError as error:
    result["no flag, not imported"] = "refused" if "trust_remote_code" in str(error) else str(error)
import pruning.remote.modeling_pruned_qwen3
result["flag, imported"] = where(AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True))
result["no flag, imported"] = where(AutoModelForCausalLM.from_pretrained(path))
""",
        tmp_path,
        installed=True,
    )
    # Seen on 4.57.6 and 5.0.0 the one way, on 5.23.0 the other.
    checkpoint_wins = Version(transformers.__version__) <= Version("5.0.0")
    assert result == {
        "flag, not imported": "transformers_modules",
        "no flag, not imported": "refused",
        "flag, imported": "transformers_modules" if checkpoint_wins else "pruning",
        "no flag, imported": "pruning",
    }


@pytest.mark.parametrize(
    "per_layer_config",
    [{"1": {"skip": ["mlp"]}, "01": {"skip": []}}, {"0": {"skip": ["self_attn"]}}, {"4": {"skip": ["mlp"]}}],
)
def test_own_code_refuses_what_transformers_lets_pass(
    checkpoints: Checkpoints, tmp_path: Path, per_layer_config: dict[str, Any]
) -> None:
    """A plan that is not valid is refused by the checkpoint's own code, too: in the config, before any model."""
    _, pruned = checkpoints(SPEC, PLAN)
    config = json.loads((pruned / "config.json").read_text()) | {"per_layer_config": per_layer_config}
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in pruned.glob("*.py"):
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "config.json").write_text(json.dumps(config))
    result = run(
        f"""
try:
    AutoConfig.from_pretrained({str(broken)!r}, trust_remote_code=True)
except ValueError as error:
    result["error"] = str(error)
""",
        tmp_path,
        installed=False,
    )
    assert result["error"].startswith("per_layer_config")
