"""Code that a checkpoint carries and that is wrong on this release: told as the one cause, with what puts it right."""

import hashlib
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

import pruning
from harness.checks.check import Numbers
from harness.checks.loaded.logits import identity
from harness.faults.planting.checkpoint_files import drop_keys
from harness.judge.judge import check_model
from harness.models.session import Session, fresh_auto_classes
from harness.report.report import Report
from pruning import load_pruned, refresh_checkpoint
from pruning.released_code import ReleasedFile, released_files
from tests.harness.checks.cases import Case, judge, record, told
from tests.plugin.running import SMALL, run_suite
from tests.unit.carrying import OLD, carry_old_code

pytestmark = pytest.mark.outermost

# The name that 0.1.0's decoder layer takes its cache by.
OLD_CODE_IS_RIGHT = "past_key_values" in inspect.signature(Qwen3DecoderLayer.forward).parameters
KEYWORD = "stored or load or logits.identity.random or cache.dynamic.one-step or cache.static.one-step"
OTHER = "8.8.8"  # a release of prunecheck that there never was


def copied(case: Case, folder: Path, name: str) -> Path:
    """Return a copy of a sound checkpoint under a name of its own: transformers names modules after it."""
    return shutil.copytree(case.sound, folder / name)


def known_to_be_wrong(report: Report, checkpoint: Path, release: str, since: str) -> bool:
    """Whether the finding is there that such code is known to be wrong somewhere, with the remedy."""
    finding = (
        f"the code that the checkpoint carries, of prunecheck {release}, is wrong from {since} on: "
        f"put the present code in its place with 'prunecheck refresh {checkpoint}'"
    )
    return report.findings.count(finding) == 1


def require_one_cause(report: Report, checkpoint: Path, release: str) -> None:
    """Require that the carried code is told, and nothing beside it."""
    (fault,) = report.faults
    assert (fault.family, fault.id) == ("code", "carried-code-is-wrong"), told(report)
    assert fault.cause == (
        f"the code that this checkpoint carries, of prunecheck {release}, is wrong on transformers "
        f"{transformers.__version__}"
    )
    assert fault.evidence[0].startswith(f"with the code of prunecheck {pruning.__version__} in its place ")
    assert fault.remedy == f"Put the present code in its place: prunecheck refresh {checkpoint}"


@pytest.mark.parametrize("trusted", [True, False])
def test_code_of_0_1_0(trusted: bool, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where 0.1.0's code is wrong, that is the one cause; elsewhere a finding says so; refreshed, it is sound."""
    checkpoint = carry_old_code(copied(case("untied"), tmp_path, f"of_0_1_0_{trusted}"))
    report = judge(case("untied"), checkpoint, trust_remote_code=trusted, keyword=KEYWORD)
    assert known_to_be_wrong(report, checkpoint, OLD, "transformers 5.24.0")
    assert record(report, "stored.code").outcome == "passed"
    assert report.environment["code"] == OLD
    if OLD_CODE_IS_RIGHT:
        assert (report.verdict, report.faults) == ("sound", ()), told(report)
    else:
        assert report.verdict == "faulty"
        require_one_cause(report, checkpoint, OLD)
    refresh_checkpoint(checkpoint, sync=False)
    # Up to 5.0 a process that has imported a checkpoint's code keeps what that imports from beside it
    # (transformers 5.0.0, `dynamic_module_utils.py`, `get_class_in_module`), unless it has another name.
    checkpoint = checkpoint.rename(checkpoint.with_name(f"refreshed_{trusted}"))
    report = judge(case("untied"), checkpoint, trust_remote_code=trusted, keyword=KEYWORD)
    assert report.verdict == "sound", told(report)
    assert not [finding for finding in report.findings if "refresh" in finding]


@pytest.mark.skipif(OLD_CODE_IS_RIGHT, reason="on this release of transformers the code of 0.1.0 is right")
@pytest.mark.parametrize("allowed", [(), ("--allow-partial",)], ids=["", "allow-partial"])
def test_the_suite(allowed: tuple[str, ...], case: Callable[[str], Case], tmp_path: Path) -> None:
    """The suite names the carried code as the cause of what fails, and says nothing of it where nothing fails."""
    checkpoint = carry_old_code(copied(case("untied"), tmp_path, f"in_the_suite_{len(allowed)}"))
    options = (f"--pruned={checkpoint}", f"--base={case('untied').base}", *SMALL, *allowed)
    result = run_suite(tmp_path, *options, "-k", KEYWORD)
    assert result.returncode == 1
    assert "= cause =" in result.stdout
    assert f"the code that this checkpoint carries, of prunecheck {OLD}, is wrong on transformers" in result.stdout
    assert f"remedy: Put the present code in its place: prunecheck refresh {checkpoint}\n" in result.stdout
    result = run_suite(tmp_path, *options, "-k", "stored or load")
    assert result.returncode == 0
    assert "= cause =" not in result.stdout


def test_a_second_run_that_crashes(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that crashes with the present code in place is a crash of the diagnosis, which says nothing else."""
    checkpoint = copied(case("untied"), tmp_path, "crashes_the_second_time")
    wrong_everywhere(monkeypatch, checkpoint, *EDITS["adds-what-it-is-given"])
    runs: list[Path] = []

    def crash_the_second_time(session: Session, kind: str) -> Numbers:
        runs.append(session.subject.root)
        if len(runs) > 1:
            raise KeyError("planted")
        return identity(session, kind)

    monkeypatch.setattr("harness.judge.all_checks.identity", crash_the_second_time)
    report = judge(case("untied"), checkpoint, keyword="plain-float32.logits.identity.random")
    assert report.verdict == "faulty"
    assert record(report, "diagnosis.carried-code").outcome == "error"
    assert "carried-code-is-wrong" not in [fault.id for fault in report.faults]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_is_given(dtype: torch.dtype, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A model that was loaded by 0.1.0's code is judged alike; one that `load_pruned` made of it is always sound."""
    checkpoint = carry_old_code(copied(case("untied"), tmp_path, f"given_{str(dtype).partition('.')[2]}"))
    options = {"checkpoint": checkpoint, "base": case("untied").base, "keyword": KEYWORD}
    with fresh_auto_classes():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True, dtype=dtype)
    report = check_model(model, **options)
    if OLD_CODE_IS_RIGHT:
        assert report.verdict == "sound", told(report)
    else:
        require_one_cause(report, checkpoint, OLD)
    report = check_model(load_pruned(checkpoint, dtype=dtype), **options)
    assert report.verdict == "sound", told(report)


def test_a_model_that_was_changed(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where a model was changed after its load, outdated code is not blamed for it."""
    checkpoint = carry_old_code(copied(case("tied"), tmp_path, "changed_after_the_load"))
    with fresh_auto_classes():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight.mul_(1.5)
    report = check_model(model, checkpoint=checkpoint, base=case("tied").base, keyword="stored or resident or random")
    assert report.faults, told(report)
    assert "carried-code-is-wrong" not in [fault.id for fault in report.faults], told(report)


def wrong_everywhere(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, name: str, edit: tuple[str, str]) -> None:
    """Edit a file of a checkpoint's code, and have the edited file be one of another release's."""
    path = checkpoint / name
    text = path.read_text(encoding="utf-8")
    assert text.count(edit[0]) == 1
    path.write_text(text.replace(*edit), encoding="utf-8")
    table = {each: dict(entries) for each, entries in released_files().items()}
    table[name][hashlib.sha256(path.read_bytes()).hexdigest()] = ReleasedFile((OTHER,))
    monkeypatch.setattr("pruning.released_code.released_files", lambda: table)


HIDDEN = "return zeros_like(hidden_states_among(args, kwargs))"
EDITS = {
    "adds-what-it-is-given": ("hollow_modules.py", (HIDDEN, HIDDEN.replace("zeros_like", ""))),
    "raises": ("hollow_modules.py", (HIDDEN, "raise TypeError('an argument that upstream has renamed')")),
    "does-not-import": ("hollow_modules.py", ("from torch import nn\n", "from torch import nn, gone_upstream\n")),
}


@pytest.mark.parametrize("how", EDITS)
def test_any_released_code_that_is_wrong(
    how: str, case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that released code does wrong here, by any error or none, it is told as the one cause."""
    checkpoint = copied(case("tied"), tmp_path, f"wrong_{how.replace('-', '_')}")
    wrong_everywhere(monkeypatch, checkpoint, *EDITS[how])
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword=KEYWORD)
    require_one_cause(report, checkpoint, f"{pruning.__version__} and {OTHER}")


def test_outdated_code_that_is_right(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code of another release that computes the same is sound, and nothing is said of it."""
    checkpoint = copied(case("tied"), tmp_path, "another_comment")
    wrong_everywhere(monkeypatch, checkpoint, "hollow_modules.py", (HIDDEN, f"{HIDDEN}  # as ever"))
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword=KEYWORD)
    assert report.verdict == "sound", told(report)
    assert not [finding for finding in report.findings if "refresh" in finding]


def lost(case: Case, folder: Path, name: str) -> Path:
    """Return a checkpoint that lacks a kept tensor, beside whatever its code does."""
    checkpoint = copied(case, folder, f"lost_and_{name}")
    drop_keys(checkpoint, lambda key: key == "model.layers.2.self_attn.q_norm.weight")
    return checkpoint


@pytest.mark.parametrize("how", ["raises", "does-not-import"])
def test_beside_another_fault(
    how: str, case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that the present code does not put right is told as well, also where the code hid it."""
    checkpoint = lost(case("tied"), tmp_path, how.replace("-", "_"))
    wrong_everywhere(monkeypatch, checkpoint, *EDITS[how])
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword=KEYWORD)
    assert [fault.id for fault in report.faults] == ["carried-code-is-wrong", "kept-keys-lost"], told(report)


def test_another_fault_alone(case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outdated code that is right is not blamed for what is wrong with the weights."""
    checkpoint = lost(case("tied"), tmp_path, "right")
    wrong_everywhere(monkeypatch, checkpoint, "hollow_modules.py", (HIDDEN, f"{HIDDEN}  # as ever"))
    report = judge(case("tied"), checkpoint, trust_remote_code=False, keyword=KEYWORD)
    assert [fault.id for fault in report.faults] == ["kept-keys-lost"], told(report)
