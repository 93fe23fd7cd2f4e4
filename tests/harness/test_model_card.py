"""The model card of a pruned checkpoint is true: its commands and its Python run, and it is its owner's to edit."""

import re
import shlex
from pathlib import Path

import pytest

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint
from tests.harness.command_line import run
from tests.unit.checkpoints import read_files


@pytest.fixture
def pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny checkpoint with a card, pruned to DST; the folder of SRC and DST is the current one."""
    source = write_tiny_checkpoint(TinySpec(), tmp_path / "SRC")
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Title\n")
    prune_checkpoint(source, tmp_path / "DST", PrunePlan(self_attn=(1, 2), mlp=(0,)), sync=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "DST"


@pytest.mark.newest
def test_its_python_runs(pruned: Path) -> None:
    """Each way of loading that the card shows gives the pruned model."""
    blocks = re.findall(r"^```python\n(.*?)^```", (pruned / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
        assert type(names["model"]).__name__ == "PrunedQwen3ForCausalLM"


@pytest.mark.newest
def test_its_commands_run(pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that checks finds nothing, and the one that prunes writes the same checkpoint, byte for byte."""
    commands = re.findall(r"^\$ prunecheck (.*)$", (pruned / "README.md").read_text(), flags=re.MULTILINE)
    check, prune = map(shlex.split, commands)
    assert run(monkeypatch, *check, "-k", "stored or plain-float32.load") == 3  # for the logits that were left out
    assert run(monkeypatch, *check, "-k", "stored or plain-float32.load", "--allow-partial") == 0
    before = read_files(pruned)
    assert run(monkeypatch, *prune, "--overwrite") == 0
    assert read_files(pruned) == before


def test_its_owner_may_edit_it(pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that was edited, and one that was removed, is no fault, with the base and without."""
    for edit in (lambda path: path.write_text("# My model\n"), Path.unlink):
        edit(pruned / "README.md")
        for base in ([], ["--base", "SRC"]):
            assert run(monkeypatch, "check", "DST", *base, "-k", "stored", "--allow-partial") == 0
