"""Other forms of faults, and of what is sound: each check sees its family, not the library's example."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.faults import foreign_checkpoint
from harness.faults.planting.checkpoint_files import (
    CONFIG,
    INDEX,
    MANIFEST,
    Json,
    copy_checkpoint,
    drop_keys,
    edit_config,
    edit_json,
    edit_tensors,
    plan_of,
    weight_files,
)
from harness.faults.planting.code_edits import edit_file, edit_foreign
from harness.faults.planting.loading import from_own_code
from harness.faults.planting.modeling_files import FOREIGN_FILE
from harness.judge.judge import check_model
from pruning import load_pruned
from tests.harness.checks.cases import Case, judge, told

pytestmark = pytest.mark.outermost

Plant = Callable[[Path, Path], None]


def config_with(**values: Any) -> Plant:
    """Return a mutation that sets entries of config.json; None takes one out."""

    def change(config: Json) -> None:
        for name, value in values.items():
            if value is None:
                del config[name]
            else:
                config[name] = value

    return edited(lambda folder: edit_config(folder, change))


def edited(change: Callable[[Path], Any]) -> Plant:
    """Return a mutation that changes a copy."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        change(destination)

    return plant


def copy_a_shard(folder: Path, *, indexed: bool) -> None:
    """Put a changed copy of the first shard beside it, which the index may name for one of its tensors."""
    shard = weight_files(folder)[0]
    copy = folder / "model-extra.safetensors"
    shutil.copy(shard, copy)
    if not indexed:
        return

    def change(content: Json) -> None:
        key = next(key for key, name in content["weight_map"].items() if name == shard.name)
        content["weight_map"][key] = copy.name

    edit_json(folder / INDEX, change)


def rename_keys(folder: Path) -> None:
    """Give every self_attn another name in the files."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if ".self_attn." in key]:
            tensors[key.replace(".self_attn.", ".attention.")] = tensors.pop(key)

    edit_tensors(folder, change)


def lose_a_shard(folder: Path, key: str | None = None) -> None:
    """Delete the last shard; and a tensor of another one with its entry of the index, if a key is named."""
    if key is not None:
        drop_keys(folder, lambda name: name == key)
    weight_files(folder)[-1].unlink()


def override_eps(config: Json) -> None:
    """Let one layer of the plan have an epsilon of its own."""
    next(iter(config["per_layer_config"].values()))["rms_norm_eps"] = 0.1


def norm_of_pruned(key: str) -> bool:
    """Whether a key is the norm in front of the mlp of layer 1, which is pruned."""
    return key == "model.layers.1.post_attention_layernorm.weight"


def zero_one_and_widen_another(tensors: dict[str, torch.Tensor]) -> None:
    """Change the values of one kept tensor, and the dtype of another."""
    for key in tensors:
        if key == "model.norm.weight":
            tensors[key] = tensors[key].float()
        elif key == "model.layers.2.mlp.up_proj.weight":
            tensors[key] = tensors[key].flip(0)


# Name -> mutation of the case "untied", and the families that are told, in their order.
FAULTY: dict[str, tuple[Plant, list[str]]] = {
    "config missing": (edited(lambda folder: (folder / CONFIG).unlink()), ["config"]),
    "config empty": (edited(lambda folder: (folder / CONFIG).write_text("{}")), ["config"]),
    "another limit of positions": (config_with(max_position_embeddings=16), ["config"]),
    "not causal": (config_with(is_causal=False), ["config"]),
    "plan of config.json lost": (config_with(per_layer_config=None), ["plan"]),
    "one layer's epsilon": (edited(lambda folder: edit_config(folder, override_eps)), ["plan"]),
    "tensors stored twice": (edited(lambda folder: copy_a_shard(folder, indexed=True)), ["files"]),
    "manifest broken": (edited(lambda folder: (folder / MANIFEST).write_text("{")), ["files"]),
    "keys renamed": (edited(rename_keys), ["keys"]),
    "a shard missing": (edited(lose_a_shard), ["files"]),
    "a shard missing, and a key of another lost": (
        edited(lambda folder: lose_a_shard(folder, "model.embed_tokens.weight")), ["files", "keys"],
    ),
    "dtype of one, values of another": (
        edited(lambda folder: edit_tensors(folder, zero_one_and_widen_another)), ["precision", "keys"],
    ),
    "code in another repository": (
        config_with(auto_map={"AutoConfig": "some/where--c.C", "AutoModelForCausalLM": "some/where--m.M"}), ["class"],
    ),
}  # fmt: skip
SOUND: dict[str, Plant] = {
    "norm of a pruned mlp not stored": edited(lambda folder: drop_keys(folder, norm_of_pruned)),
    "optimizer beside the shards": edited(lambda folder: copy_a_shard(folder, indexed=False)),
}


@pytest.mark.parametrize("name", FAULTY)
def test_stored_fault(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """What is stored is faulty, and exactly the families of the faults are told."""
    plant, families = FAULTY[name]
    plant(case("untied").sound, tmp_path / "faulty")
    report = judge(case("untied"), tmp_path / "faulty", keyword="stored")
    assert [fault.family for fault in report.faults] == families, told(report)


@pytest.mark.parametrize("name", SOUND)
def test_stored_and_sound(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """What cannot matter is a finding."""
    SOUND[name](case("untied").sound, tmp_path / "sound")
    report = judge(case("untied"), tmp_path / "sound", keyword="not text")
    assert report.verdict == "sound", told(report)
    assert report.findings


def test_key_that_the_manifest_names(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Without a base, a tensor that the manifest names and no file holds is missed."""
    plant = edited(lambda folder: drop_keys(folder, lambda key: key == "lm_head.weight"))
    plant(case("untied").sound, tmp_path / "faulty")
    report = judge(case("untied"), tmp_path / "faulty", base=None, keyword="manifest")
    assert [(fault.family, fault.id) for fault in report.faults] == [("tied-head", "named-but-not-stored")]


# What a third party's class may be like.

_SKIPS = "        self.skip_attention = layer_idx in config.skip_attention\n"
_CODE_FAULTS: dict[str, tuple[Plant, str]] = {
    "counted from 1": (
        edit_foreign((_SKIPS, _SKIPS.replace("layer_idx in", "layer_idx + 1 in"))), "plan",
    ),
    "a file that is not there": (edit_foreign(("from torch import nn\n", "from .lost import nn\n")), "class"),
    "an import that fails": (edit_foreign(("from torch import nn\n", "from torch import nnn as nn\n")), "class"),
}  # fmt: skip


@pytest.mark.parametrize("name", _CODE_FAULTS)
def test_code_fault(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A class that skips others than the plan is a fault of the plan, one that cannot be imported of the class."""
    plant, family = _CODE_FAULTS[name]
    plant(case("untied").sound, tmp_path / "faulty")
    report = judge(case("untied"), tmp_path / "faulty", keyword="stored or load or resident or called")
    assert [fault.family for fault in report.faults] == [family], told(report)


def reexported(checkpoint: Path, destination: Path) -> None:
    """Write a foreign checkpoint whose auto_map names a file that imports the class from another."""
    foreign_checkpoint(checkpoint, destination)
    (destination / FOREIGN_FILE).rename(destination / "skipping.py")
    (destination / FOREIGN_FILE).write_text("from .skipping import SkippingQwen3ForCausalLM\n")


_OWN_NORM = """
class OwnNorm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x):
        wide = x.float()
        return (self.weight.float() * (wide * (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt())).to(x.dtype)


"""


def own_norms(checkpoint: Path, destination: Path) -> None:
    """Write a foreign checkpoint that computes its norms by code of its own: equal but for rounding."""
    foreign_checkpoint(checkpoint, destination)
    replaced = "        self.input_layernorm = OwnNorm(self.input_layernorm)\n"
    begin = "class SkippingQwen3DecoderLayer(Qwen3DecoderLayer):\n"
    edit_file(destination / FOREIGN_FILE, ((begin, _OWN_NORM.lstrip("\n") + begin), (_SKIPS, replaced + _SKIPS)))


_DELETED = """\
        if self.skip_attention:
            del self.self_attn
        if self.skip_mlp:
            del self.mlp
"""
_NONE_IN_PLACE = edit_foreign(
    (
        _DELETED,
        _DELETED.replace("del self.self_attn", "self.self_attn = None").replace("del self.mlp", "self.mlp = None"),
    )
)
_CALLED_BY_ITS_FORWARD = edit_foreign(("self.mlp(self.post", "self.mlp.forward(self.post"))


@pytest.mark.parametrize("plant", [reexported, own_norms, _NONE_IN_PLACE, _CALLED_BY_ITS_FORWARD])
def test_sound_code(plant: Plant, case: Callable[[str], Case], tmp_path: Path) -> None:
    """A class that is imported from elsewhere, or computes the same by other code, is sound in every precision."""
    plant(case("untied").sound, tmp_path / "sound")
    options = {"dtype": ("float32", "bfloat16"), "keyword": "stored or load or resident or called or poison or logits"}
    report = judge(case("untied"), tmp_path / "sound", **options)
    assert report.verdict == "sound", told(report)


# Models that somebody loaded.


def judged(model: Any, case: Case) -> Any:
    """Judge a model of a case's sound checkpoint."""
    return check_model(
        model, checkpoint=case.sound, base=case.base, keyword="stored or load or placement or resident or called"
    )


def test_float16_is_a_choice_that_is_told(case: Callable[[str], Case]) -> None:
    """A bfloat16 checkpoint that was loaded in float16 is faulty before anything overflows."""
    report = judged(load_pruned(case("untied").sound, dtype=torch.float16), case("untied"))
    assert [(fault.family, fault.id) for fault in report.faults] == [("precision", "float16-chosen")], told(report)


def test_config_that_the_load_changed_is_told(case: Callable[[str], Case]) -> None:
    """A keyword of the load that changes the config is told as such."""
    report = judged(load_pruned(case("untied").sound, dtype=torch.float32, rms_norm_eps=0.1), case("untied"))
    assert [(fault.family, fault.id) for fault in report.faults] == [("config", "config-changed-by-the-load")]
    assert report.faults[0].evidence[0] == "rms_norm_eps=0.1, but should be 0.001"


def test_subclass_is_the_class(case: Callable[[str], Case]) -> None:
    """A subclass of the class that config.json names is no other class."""
    model: Any = load_pruned(case("tied").sound, dtype=torch.float32)
    model.__class__ = type("Mine", (type(model),), {})
    assert judged(model, case("tied")).faults == ()


def test_weights_that_hooks_bring_in_are_offloaded(case: Callable[[str], Case]) -> None:
    """A model that accelerate offloads after the load has its weights where its hooks look."""
    from accelerate import cpu_offload

    model: Any = load_pruned(case("tied").sound, dtype=torch.float32)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert judged(model, case("tied")).faults == ()


def test_stock_model_that_is_pruned_in_memory_is_sound(case: Callable[[str], Case]) -> None:
    """A stock model whose layers were told to skip, after the load of the base, is what the plan gives."""
    each = case("tied")
    model = pruned_in_memory(each)
    report = check_model(model, checkpoint=each.sound, base=each.base, keyword="load or called or logits.identity")
    assert report.faults == (), told(report)


def pruned_in_memory(case: Case) -> Any:
    """Load the base by the stock class, and let its layers skip what the plan prunes."""
    from harness.reference.models import identity_reference

    self_attn, mlp = plan_of(json.loads((case.sound / CONFIG).read_text()))
    return identity_reference(case.base, self_attn, mlp, dtype=torch.float32)


def test_error_of_a_check_costs_that_check_alone(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that raises is an error with the traceback's last line, so that the verdict is no more than undecided."""
    monkeypatch.setattr("harness.checks.stored.keys._shape_faults", lambda subject: 1 / 0)
    report = judge(case("tied"), keyword="stored.keys or stored.files")
    (record,) = (each for each in report.checks if each.name == "stored.keys")
    assert (record.outcome, record.reason) == ("error", "ZeroDivisionError: division by zero")
    assert (record.traceback or "").startswith("Traceback (most recent call last):\n")
    assert report.verdict == "undecided"


def test_own_code_loads_twice(case: Callable[[str], Case]) -> None:
    """A model that its own code loaded, in a process where that was loaded before, is not stale."""
    from_own_code(case("tied").sound)
    assert judged(from_own_code(case("tied").sound, dtype=torch.float32), case("tied")).faults == ()
