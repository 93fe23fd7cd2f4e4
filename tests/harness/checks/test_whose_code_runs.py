"""Code of a checkpoint's own runs where it is trusted, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.faults import foreign_checkpoint
from harness.faults.checkpoint_files import copy_checkpoint, edit_config, edit_json
from tests.harness.checks.cases import Case, judge, record, told


def set_trap(checkpoint: Path, canary: Path) -> None:
    """Have every Python file of a checkpoint write a file when it runs."""
    for path in checkpoint.glob("*.py"):
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\nfrom pathlib import Path\n\nPath({str(canary)!r}).write_text('ran')\n")


def test_third_party_trusted(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A third party's sound checkpoint is sound where its code may run, and its code did run."""
    foreign_checkpoint(case("untied").sound, tmp_path / "trusted")
    set_trap(tmp_path / "trusted", tmp_path / "canary")
    report = judge(case("untied"), tmp_path / "trusted")
    assert report.verdict == "sound", told(report)
    assert (tmp_path / "canary").exists()
    assert "model_type is 'qwen3': without trust_remote_code=True the stock class loads in silence" in report.findings


def test_third_party_not_trusted(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Without trust the same checkpoint is undecided, and none of its code has run."""
    foreign_checkpoint(case("untied").sound, tmp_path / "untrusted")
    set_trap(tmp_path / "untrusted", tmp_path / "canary")
    report = judge(case("untied"), tmp_path / "untrusted", trust_remote_code=False)
    assert report.verdict == "undecided", told(report)
    assert not (tmp_path / "canary").exists()
    assert record(report, "stored.base-bytes").outcome == "passed"


def test_our_own_code_needs_no_trust(case: Callable[[str], Case]) -> None:
    """The files of a release are ours whoever sends them, so they run without being trusted."""
    report = judge(case("tied"), trust_remote_code=False, keyword="stored or load or logits.identity.random")
    assert report.verdict == "sound", told(report)
    assert record(report, "stored.code").outcome == "passed"


def test_our_own_code_changed(case: Callable[[str], Case], tmp_path: Path) -> None:
    """One of our files that was changed is ours no more: a finding names it, and it does not run without trust."""
    copy_checkpoint(case("tied").sound, tmp_path / "changed")
    path = tmp_path / "changed" / "hollow_modules.py"
    path.write_text(f"{path.read_text()}\nopen({str(tmp_path / 'canary')!r}, 'w').close()\n")
    report = judge(case("tied"), tmp_path / "changed", trust_remote_code=False)
    assert report.verdict == "undecided", told(report)
    assert not (tmp_path / "canary").exists()
    assert "hollow_modules.py is not the file that pruning.json names: it was changed" in report.findings


@pytest.mark.parametrize("where", ["beside", "another repository", "tokenizer", "custom generate"])
def test_code_by_another_way(where: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code that comes with our own files, by whatever way, does not run without trust."""
    checkpoint = tmp_path / f"smuggled_{where.replace(' ', '_')}"
    copy_checkpoint(case("tied").sound, checkpoint)
    evil = f"open({str(tmp_path / 'canary')!r}, 'w').close()\n"
    if where == "custom generate":
        (checkpoint / "custom_generate").mkdir()
        (checkpoint / "custom_generate" / "generate.py").write_text(f"{evil}def generate(*a, **k): raise ValueError\n")
    else:
        (checkpoint / "evil.py").write_text(f"{evil}class Evil: pass\n")
    if where == "another repository":
        edit_config(checkpoint, lambda config: config["auto_map"].update(AutoModel=f"{checkpoint}--evil.Evil"))
    if where == "tokenizer":
        auto_map = {"AutoTokenizer": ["evil.Evil", None]}
        edit_json(checkpoint / "tokenizer_config.json", lambda content: content.update(auto_map=auto_map))
    judge(case("tied"), checkpoint, trust_remote_code=False)
    judge(case("tied"), checkpoint, trust_remote_code=False, base=None)
    assert not (tmp_path / "canary").exists()
