"""Code of a checkpoint's own runs where it is trusted, and nowhere else."""

import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers.modeling_utils

from harness.errors import CannotRun
from harness.faults import foreign_checkpoint
from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_config, edit_json
from pruning import CheckpointError, load_pruned
from tests.harness.checks.cases import Case, judge, record, told
from tests.harness.command_line import run


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


@pytest.mark.newest
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("how", ["changed", "added"])
def test_changed_code_is_told_before_it_runs(
    how: str,
    trusted: bool,
    case: Callable[[str], Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """That a file is not the manifest's, or not in it, is on stderr before any of it runs, and first in the report."""
    checkpoint = tmp_path / f"told_first_{how}"
    copy_checkpoint(case("tied").sound, checkpoint)
    runs = "import sys\n\nprint('it runs', file=sys.stderr, flush=True)\n"
    if how == "changed":
        path = checkpoint / "hollow_modules.py"
        path.write_text(f"{path.read_text()}\n{runs}")
    else:
        (checkpoint / "added.py").write_text(f"{runs}from .modeling_pruned_qwen3 import PrunedQwen3ForCausalLM\n")
        name = "added.PrunedQwen3ForCausalLM"
        edit_config(checkpoint, lambda config: config["auto_map"].update(AutoModelForCausalLM=name))
    options = ["--device-map", "plain", "--dtype", "float32", "--quantisation", "none", "-k", "load"]
    trust = ["--trust-remote-code"] if trusted else []
    report = tmp_path / "report.json"
    assert run(monkeypatch, "check", checkpoint, "--json", report, *options, *trust) in (1, 3)
    told = {
        "changed": "hollow_modules.py is not the file that pruning.json names: it was changed",
        "added": "added.py is not among the files that pruning.json names: it was added",
    }[how]
    error = capsys.readouterr().err
    assert error.startswith(f"prunecheck: {told}\n")
    assert ("it runs" in error) == trusted
    assert json.loads(report.read_text())["findings"][0] == told


def test_code_beside_a_release(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code that was put beside ours is told, also where ours is as it was, and in folders."""
    checkpoint = tmp_path / "beside"
    copy_checkpoint(case("tied").sound, checkpoint)
    (checkpoint / "custom_generate").mkdir()
    for name in ("custom_generate/generate.py", "tokenization.py"):
        (checkpoint / name).write_text("")
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword="stored")
    names = "custom_generate/generate.py, tokenization.py"
    assert report.findings[0] == f"{names} are not among the files that pruning.json names: they were added"
    assert judge(case("tied"), keyword="stored").findings == ()


def test_no_place_for_code(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the home directory cannot be written, so that no code can be imported, nothing is blamed on the code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", "/proc/nowhere/modules")
    report = judge(case("tied"), keyword="stored or load or logits.identity.random")
    assert report.verdict == "undecided", told(report)
    assert record(report, "plain-float32.load").reason == (
        "transformers cannot keep modeling code in /proc/nowhere/modules, No such file or directory: "
        "set HF_HOME to another directory"
    )


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


class Canary:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Yield the names of the files that are opened while a test runs."""
    names: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and listening:
            names.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "")

    listening = [True]
    sys.addaudithook(note)
    yield names
    listening.clear()  # a hook stays for good


@pytest.mark.parametrize("weights", ["there", "broken", "absent"])
def test_no_pickle_is_opened(weights: str, case: Callable[[str], Case], tmp_path: Path, opened: list[str]) -> None:
    """Whatever becomes of the safetensors, no pickle beside them is opened, with trust neither, nor is one run."""
    checkpoint = tmp_path / f"pickled_{weights}"
    copy_checkpoint(case("tied").sound, checkpoint)
    for name in ("pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "adapter_model.bin", "model.pt", "x.pkl"):
        (checkpoint / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model-00001-of-00001.bin"}}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    if weights == "broken":
        (checkpoint / "model.safetensors").write_bytes(b"x")
    if weights == "absent":
        (checkpoint / "model.safetensors").unlink()
    opened.clear()  # what was just written
    for base in (case("tied").base, None):
        report = judge(case("tied"), checkpoint, base=base, trust_remote_code=True, keyword="stored or load or text")
        assert report.verdict == "faulty" if weights != "there" else report.faults == (), told(report)
    assert any(name.endswith("config.json") for name in opened)
    assert not [name for name in opened if name.endswith((".bin", ".pt", ".pkl"))]
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("code", ["ours", "foreign", "tokenizer", "in a list", "in a text"])
def test_nobody_is_asked(
    code: str, case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked whether code may run: of whom it is decides, in whatever form transformers is told of it.

    Where transformers is not told, it asks for ours, too, and waits for an answer. Forms of auto_map that are none
    have it raise before it would (4.57.6 and 5.23.0, `configuration_auto.py`).
    """
    checkpoint = tmp_path / f"asking_{code.replace(' ', '_')}"
    if code == "foreign":
        foreign_checkpoint(case("tied").sound, checkpoint)
    else:
        copy_checkpoint(case("tied").sound, checkpoint)
    names = ["AutoConfig", "AutoModelForCausalLM"]
    if code == "in a list":
        edit_config(checkpoint, lambda config: config.update(auto_map=names))
    if code == "in a text":
        edit_config(checkpoint, lambda config: config.update(auto_map=" ".join(names)))
    if code == "tokenizer":
        auto_map = {"AutoTokenizer": ["tokenization.Theirs", None]}
        edit_json(checkpoint / "tokenizer_config.json", lambda content: content.update(auto_map=auto_map))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or "y")
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword="stored or load or text")
    assert asked == []
    assert (report.verdict == "faulty") == code.startswith("in a"), told(report)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("where", ["checkpoint", "base"])
def test_kernels_of_the_hub(
    where: str, trusted: bool, case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config that has attention computed by a hub repository's code does not have it fetched, let alone run."""
    fetched: list[Any] = []
    for name in ("lazy_import_flash_attention", "load_and_register_attn_kernel"):
        if hasattr(transformers.modeling_utils, name):
            monkeypatch.setattr(transformers.modeling_utils, name, lambda *names, **_: fetched.append(names))
    odd = tmp_path / f"kernel_{where}_{trusted}"
    copy_checkpoint(case("tied").sound if where == "checkpoint" else case("tied").base, odd)
    edit_config(odd, lambda config: config.update(_attn_implementation="somebody/kernel"))
    if where == "base":
        with pytest.raises(
            CannotRun, match=r"asks for code of a hub repository in config\.json, somebody/kernel: remove"
        ):
            judge(case("tied"), base=odd, trust_remote_code=trusted)
    else:
        report = judge(case("tied"), odd, trust_remote_code=trusted, keyword="stored or load or random")
        assert report.verdict == "undecided", told(report)
        reason = "config.json asks for code of a hub repository, which is not fetched: somebody/kernel"
        assert record(report, "plain-float32.load").reason == reason
        with pytest.raises(CheckpointError, match="'somebody/kernel', code of a hub repository"):
            load_pruned(odd)
    assert fetched == []


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.mkdir('CANARY') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ lipsum.__globals__['os'].mkdir('CANARY') }}",
        "{{ raise_exception.__globals__['jinja2'].os.mkdir('CANARY') }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_chat_templates_stay_in_their_box(template: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A chat template that reaches for Python, in base and checkpoint alike, makes nothing and reads nothing."""
    for name, checkpoint in (("base", case("tied").base), ("boxed", case("tied").sound)):
        copy_checkpoint(checkpoint, tmp_path / name)
        text = template.replace("CANARY", str(tmp_path / "canary"))
        edit_json(
            tmp_path / name / "tokenizer_config.json", lambda content, text=text: content.update(chat_template=text)
        )
    report = judge(
        case("tied"),
        tmp_path / "boxed",
        base=tmp_path / "base",
        trust_remote_code=False,
        keyword="stored or load or text",
    )
    assert not (tmp_path / "canary").exists()
    assert "root:" not in json.dumps(report.to_dict())
