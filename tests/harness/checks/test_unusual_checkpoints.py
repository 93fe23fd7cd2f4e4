"""Unusual checkpoints: what is sound in them is sound, what is odd is a finding, what is wrong is found."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_config, edit_tensors, weight_files
from pruning import PrunePlan, prune_checkpoint
from tests.harness.checks.cases import Case, judge, record, told
from tests.harness.checks.planted import change_tensor, one_bit_flipped, one_nan
from tests.harness.checks.ruined import write_checkpoint_of_one_mlp

ENOUGH = "stored or load or called or logits.identity.random"


def bare_state_dict(checkpoint: Path, destination: Path) -> Path:
    """Write the safetensors files of a checkpoint alone, under names of their own."""
    destination.mkdir()
    for number, path in enumerate(weight_files(checkpoint)):
        shutil.copyfile(path, destination / f"weights-{number}.safetensors")
    return destination


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_bare_state_dict(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """Safetensors files without a config are judged with the base's config and our class, and are sound."""
    report = judge(case(name), bare_state_dict(case(name).sound, tmp_path / f"bare_{name}"), trust_remote_code=False)
    assert report.verdict == "sound", told(report)
    assert report.plan == case(name).plan.to_dict()
    assert report.environment["plan_from"] == "which keys are absent"


def no_links(*_: Any, **__: Any) -> None:
    """Fail as a file system without links does."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_bare_state_dict_where_there_are_no_links(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare state dict is judged also where the directory for temporary files is on a file system without links."""
    bare = bare_state_dict(case("untied").sound, tmp_path / "bare")
    monkeypatch.setattr(Path, "symlink_to", no_links)
    report = judge(case("untied"), bare, keyword=ENOUGH)
    assert report.verdict == "sound", told(report)


def test_bare_state_dict_where_there_is_no_room(
    case: Callable[[str], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no links and no room for a copy, a bare state dict is undecided, and no fault of its own."""

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bare = bare_state_dict(case("untied").sound, tmp_path / "bare")
    monkeypatch.setattr(Path, "symlink_to", no_links)
    monkeypatch.setattr(shutil, "copyfile", no_room)
    report = judge(case("untied"), bare, keyword=ENOUGH)
    assert report.verdict == "undecided", told(report)
    for check in ("load", "logits.identity.random"):
        assert record(report, f"plain-float32.{check}").reason == (
            "the state dict cannot be put beside a config in the directory for temporary files, "
            "No space left on device: set TMPDIR to another"
        )


def test_bare_state_dict_with_a_changed_bit(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A bit that changed in a bare state dict is found."""
    one_bit_flipped(case("untied").sound, tmp_path / "bit")
    report = judge(case("untied"), bare_state_dict(tmp_path / "bit", tmp_path / "bare"), keyword=ENOUGH)
    assert report.verdict == "faulty"
    assert report.faults[0].cause == "the bytes of 1 of 32 kept tensors are not the base's"


def test_bare_state_dict_without_a_base(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A bare state dict says nothing without a base, so nothing is decided."""
    report = judge(case("untied"), bare_state_dict(case("untied").sound, tmp_path / "bare"), base=None)
    assert report.verdict == "undecided", told(report)
    loads = record(report, "plain-float32.load")
    assert loads.reason == "a state dict without config.json needs --base, whose config says what it belongs to"


def test_nan_in_a_kept_tensor(case: Callable[[str], Case], tmp_path: Path) -> None:
    """NaN in a kept tensor is a fault of the values, told with the bytes that it changed."""
    one_nan(case("tied").sound, tmp_path / "nan")
    report = judge(case("tied"), tmp_path / "nan", base=None, keyword="stored.values")
    (fault,) = report.faults
    assert (fault.family, fault.cause) == ("values", "1 stored tensor(s) hold NaN or infinity, first model.norm.weight")
    assert fault.evidence == ("1 elements of model.norm.weight",)


def test_nan_that_the_base_has(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Where the base holds the NaN as well, the evidence says so."""
    one_nan(case("tied").base, tmp_path / "base")
    prune_checkpoint(tmp_path / "base", tmp_path / "nan", case("tied").plan, sync=False)
    report = judge(case("tied"), tmp_path / "nan", base=tmp_path / "base")
    assert report.faults[0].family == "values"
    assert report.faults[0].evidence[:2] == ("1 elements of model.norm.weight", "the base holds them too")


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        (0.0, "1 kept tensor(s) are all zero: model.layers.2.mlp.up_proj.weight"),
        (1e-40, "1 kept tensor(s) hold denormal numbers: model.layers.2.mlp.up_proj.weight"),
    ],
)
def test_odd_values(value: float, finding: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A tensor of zeros, or of denormal numbers, that the base has too is a finding, and no fault."""
    odd = change_tensor("model.layers.2.mlp.up_proj.weight", lambda tensor: tensor.fill_(value))
    odd(case("tied").base, tmp_path / "base")
    prune_checkpoint(tmp_path / "base", tmp_path / "odd", case("tied").plan, sync=False)
    report = judge(case("tied"), tmp_path / "odd", base=tmp_path / "base", keyword=ENOUGH)
    assert report.verdict == "sound", told(report)
    assert finding in report.findings


def test_a_tensor_of_zeros_without_a_base(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Without a base nobody can say whether the zeros were meant, so they are named, and the verdict is not sound."""
    odd = change_tensor("model.layers.2.mlp.up_proj.weight", lambda tensor: tensor.zero_())
    odd(case("tied").base, tmp_path / "base")
    prune_checkpoint(tmp_path / "base", tmp_path / "odd", case("tied").plan, sync=False)
    report = judge(case("tied"), tmp_path / "odd", base=None, keyword=ENOUGH)
    assert report.verdict == "undecided", told(report)
    assert "1 kept tensor(s) are all zero: model.layers.2.mlp.up_proj.weight" in report.findings


def take_apart(base: Path, form: str) -> None:
    """Store a tokenizer of bytes as vocabulary and merges, its last token in the place that `form` names."""
    if form == "tokenizer.json":
        return
    vocabulary = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (base / "tokenizer.json").unlink()
    (base / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings: dict[str, Any] = {"tokenizer_class": "Qwen2Tokenizer"}
    if form != "vocab.json":
        last, number = max(vocabulary.items(), key=lambda item: item[1])
        del vocabulary[last]
        if form == "added_tokens.json":
            (base / form).write_text(json.dumps({last: number}), encoding="utf-8")
        else:
            settings[form] = {str(number): {"content": last, "special": True}}
    (base / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (base / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json", "added_tokens.json", "added_tokens_decoder"])
@pytest.mark.parametrize("rows", [320, 256, 255])
def test_vocabulary_and_tokenizer(rows: int, form: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A tokenizer of 256 tokens fits 320 or 256 rows of the embedding; with 255, token 255 has none, which is told.

    In whatever form it is stored: as one file, or as vocabulary and merges, with the last token noted apart or not.
    """

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:rows].clone()

    copy_checkpoint(case("tied").base, tmp_path / "base")
    edit_tensors(tmp_path / "base", cut)
    edit_config(tmp_path / "base", lambda config: config.update(vocab_size=rows))
    take_apart(tmp_path / "base", form)
    prune_checkpoint(tmp_path / "base", tmp_path / "pruned", case("tied").plan, sync=False)
    for base in (tmp_path / "base", None):
        report = judge(case("tied"), tmp_path / "pruned", base=base, keyword="stored.tokenizer")
        assert record(report, "stored.tokenizer").outcome == ("passed" if rows >= 256 else "failed"), told(report)
        if rows < 256:
            (fault,) = report.faults
            assert fault.family == "tokenizer"
            assert fault.cause == "the tokenizer has 1 token(s) for which the model has no embedding"
            assert fault.evidence == ("'\u0143' is 255, but model.embed_tokens.weight has 255 rows",)


def test_pruned_twice(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A checkpoint that was pruned, and pruned again, is sound against the base of both."""
    more = case("tied").plan | PrunePlan(self_attn=(0,), mlp=(2,))
    prune_checkpoint(case("tied").sound, tmp_path / "twice", more, sync=False)
    report = judge(case("tied"), tmp_path / "twice")
    assert report.verdict == "sound", told(report)
    assert report.plan == more.to_dict()


def test_another_plan_was_meant(case: Callable[[str], Case]) -> None:
    """A checkpoint that carries out another plan than the one that is given is faulty in its plan."""
    meant = PrunePlan(self_attn=(2,), mlp=(0,))
    report = judge(case("tied"), plan=meant, keyword="stored.plan")
    assert [(fault.family, fault.cause) for fault in report.faults] == [
        ("plan", "config.json says self_attn 1, mlp 0, but the plan that was given says self_attn 2, mlp 0"),
    ]


def test_plan_that_ruins_the_model(tmp_path: Path) -> None:
    """Where the plan takes what the model knows, that is a finding: the pruned model is the one that was meant."""
    base = write_checkpoint_of_one_mlp(tmp_path / "base")
    prune_checkpoint(base, tmp_path / "ruined", PrunePlan(mlp=(0,)), sync=False)
    report = judge(Case(base, tmp_path / "ruined", PrunePlan(mlp=(0,))))
    assert report.verdict == "sound", told(report)
    ruined = [finding for finding in report.findings if "ruins" in finding]
    assert len(ruined) == 1
    assert ruined[0].startswith(
        "the plan itself ruins this model: the reference is garbled too (plain-float32, it says what its plan gives, "
        "but plan_cost="
    )


def test_plan_that_takes_what_does_nothing(tmp_path: Path) -> None:
    """Where the plan takes what the model does not need, nothing is said about it."""
    base = write_checkpoint_of_one_mlp(tmp_path / "base")
    prune_checkpoint(base, tmp_path / "pruned", PrunePlan(mlp=(1,)), sync=False)
    report = judge(Case(base, tmp_path / "pruned", PrunePlan(mlp=(1,))), keyword=f"({ENOUGH}) or text")
    assert report.verdict == "sound", told(report)
    assert not any("ruins" in finding for finding in report.findings)


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_another_file_of_tensors_beside(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A safetensors file that nothing loads, such as an adapter's, does not make the checkpoint another."""
    checkpoint = tmp_path / f"beside_{name}"
    copy_checkpoint(case(name).sound, checkpoint)
    save_file(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 64)},
        checkpoint / "adapter_model.safetensors",
    )
    report = judge(case(name), checkpoint, keyword=ENOUGH)
    assert report.verdict == "sound", told(report)


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("name", ["untied", "tied"])
def test_config_that_cannot_be_read(name: str, with_base: bool, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A config.json that was cut off is told as that, and nothing that was read into it besides."""
    checkpoint = tmp_path / f"cut_{name}"
    copy_checkpoint(case(name).sound, checkpoint)
    text = (checkpoint / "config.json").read_text(encoding="utf-8")
    (checkpoint / "config.json").write_text(text[: len(text) // 2], encoding="utf-8")
    report = judge(case(name), checkpoint, base=case(name).base if with_base else None)
    assert report.verdict == "faulty"
    assert [fault.family for fault in report.faults] == ["config"], told(report)
    assert report.faults[0].cause.startswith("config.json cannot be read: ")
