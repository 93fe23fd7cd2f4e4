"""Checkpoints made to harm whoever judges them: each ends with a verdict, or one line, and nothing is waited for."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CannotRun
from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_config, edit_json
from harness.planning.scan.run import scan_checkpoint
from harness.report.junit import junit_xml
from harness.report.report import Report
from harness.report.report_view import print_report
from harness.subject.untrusted_files import read_json
from tests.harness.checks.cases import PLAIN, Case, judge, record, told
from tests.unit.checkpoints import exactly, raw_shard
from tests.unit.test_source import as_hub_cache

pytestmark = pytest.mark.newest

STORED = "stored or load"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def hostile(case: Callable[[str], Case], tmp_path: Path) -> Path:
    """Return a copy of a sound pruned checkpoint in one file, to be made hostile."""
    copy_checkpoint(case("tied").sound, tmp_path / "hostile")
    return tmp_path / "hostile"


def put_instead(path: Path, kind: str) -> None:
    """Put something that is no file into a file's place."""
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def faulty(case: Case, checkpoint: Path, base: bool = True) -> Report:
    """Judge, and check that all views can be made of what was found, which is a fault."""
    report = judge(case, checkpoint, keyword=STORED, trust_remote_code=False, base=case.base if base else None)
    print_report(report)
    json.dumps(report.to_dict())
    ElementTree.fromstring(junit_xml(report))
    assert report.verdict == "faulty", told(report)
    return report


@pytest.mark.parametrize("kind", ["FIFO", "device"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "pruning.json", "tokenizer.json", "tokenizer_config.json",
     "generation_config.json", "modeling_pruned_qwen3.py"],
)  # fmt: skip
def test_what_is_no_file(name: str, kind: str, case: Callable[[str], Case], hostile: Path) -> None:
    """A FIFO or a device in the place of whatever file ends the judging with one line before it is opened."""
    put_instead(hostile / name, kind)
    with pytest.raises(
        CannotRun, match=exactly(f"{hostile / name} is not a regular file: put the file itself in its place")
    ):
        judge(case("tied"), hostile)


def test_a_shard_that_is_no_file(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A FIFO under the name of an indexed shard, which transformers would wait for, is refused; in the base too."""
    for name, checkpoint in (("sound", case("untied").sound), ("base", case("untied").base)):
        copy_checkpoint(checkpoint, tmp_path / name)
        shard = tmp_path / name / "model-00002-of-00003.safetensors"
        put_instead(shard, "FIFO")
        with pytest.raises(
            CannotRun, match=exactly(f"{shard} is not a regular file: put the file itself in its place")
        ):
            judge(case("untied"), **({"checkpoint": tmp_path / name} if name == "sound" else {"base": tmp_path / name}))


def outside(path: Path, elsewhere: Path, what: str = "file") -> str:
    """Return the pattern of the line on a link out of the checkpoint."""
    return exactly(
        f"{path} is a link to '{elsewhere}', which is outside the checkpoint: put the {what} itself in its place"
    )


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "pruning.json", "tokenizer.json", "tokenizer_config.json",
     "modeling_pruned_qwen3.py", "chat_template.jinja", "other.safetensors"],
)  # fmt: skip
def test_links_out_of_the_checkpoint(name: str, case: Callable[[str], Case], hostile: Path) -> None:
    """A link to a file elsewhere, under a name that is read, ends the judging with one line that names both."""
    elsewhere = hostile.parent / "private"
    if (hostile / name).exists():
        (hostile / name).rename(elsewhere)
    else:
        elsewhere.write_text("a secret")
    (hostile / name).symlink_to("../private")
    with pytest.raises(CannotRun, match=outside(hostile / name, elsewhere)):
        judge(case("tied"), hostile)


def test_a_shard_that_is_a_link(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A shard that is a link to another checkpoint's is refused; in the base too."""
    for name, checkpoint in (("sound", case("untied").sound), ("base", case("untied").base)):
        copy_checkpoint(checkpoint, tmp_path / name)
        shard = tmp_path / name / "model-00002-of-00003.safetensors"
        shard.unlink()
        shard.symlink_to(checkpoint / shard.name)
        with pytest.raises(CannotRun, match=outside(shard, checkpoint / shard.name)):
            judge(case("untied"), **({"checkpoint": tmp_path / name} if name == "sound" else {"base": tmp_path / name}))


def test_a_folder_that_is_a_link(case: Callable[[str], Case], hostile: Path) -> None:
    """So is a folder in which transformers looks for templates."""
    elsewhere, folder = hostile.parent / "private", hostile / "additional_chat_templates"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with pytest.raises(CannotRun, match=outside(folder, elsewhere, "folder")):
        judge(case("tied"), hostile)


@pytest.mark.parametrize("kind", ["hub cache", "within", "not read"])
def test_links_that_are_sound(kind: str, case: Callable[[str], Case], hostile: Path, tmp_path: Path) -> None:
    """Links to the hub cache's blobs, within the checkpoint, to its directory, and of what is not read, are sound."""
    base = tmp_path / "base"
    copy_checkpoint(case("tied").base, base)
    if kind == "hub cache":
        hostile, base = (as_hub_cache(tmp_path, each, f"models--some-org--{each.name}") for each in (hostile, base))
    elif kind == "within":
        (hostile / "files").mkdir()
        for name in ("config.json", "model.safetensors"):
            (hostile / name).rename(hostile / "files" / name)
            (hostile / name).symlink_to(f"files/{name}")
    else:
        for name, elsewhere in {
            "training_args.bin": "/etc/hostname",
            "README.md": "/etc/hostname",
            "runs": "/",
        }.items():
            (hostile / name).unlink(missing_ok=True)
            (hostile / name).symlink_to(elsewhere)
    for name, checkpoint in (("link", hostile), ("link to the base", base)):
        (tmp_path / name).symlink_to(checkpoint)
    report = judge(case("tied"), tmp_path / "link", base=tmp_path / "link to the base")
    assert report.verdict == "sound", told(report)


@pytest.mark.parametrize("name", ["config.json", "pruning.json", "tokenizer.json", "modeling_pruned_qwen3.py"])
def test_a_file_beyond_all_measure(name: str, case: Callable[[str], Case], hostile: Path) -> None:
    """A file of text of a terabyte, sparse on the sender's disk, is not read."""
    os.truncate(hostile / name, 10**12)
    message = f"{hostile / name} has {10**12} bytes, more than any such file needs: remove it"
    with pytest.raises(CannotRun, match=exactly(message)):
        judge(case("tied"), hostile)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\xfe{}", "it is not UTF-8 at byte 0"),
        (b"[]", "it is no JSON object"),
        (b'{"model_type": ["qwen3"]}', "its model_type is no string"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "it is nested too deeply"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits) for integer string conversion: "),
    ],
    ids=["empty", "UTF-16", "list", "model_type", "deep", "deeper", "digits"],
)  # fmt: skip
def test_a_config_that_cannot_be_read(content: bytes, reason: str, case: Callable[[str], Case], hostile: Path) -> None:
    """A config.json of whatever bytes is told, in one line, as one that cannot be read."""
    (hostile / "config.json").write_bytes(content)
    fault = faulty(case("tied"), hostile).faults[0]
    assert fault.family == "config"
    assert fault.cause.startswith(f"config.json cannot be read: {reason}")
    assert "\n" not in fault.cause


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(
    "header",
    [
        {"a\n\x1b[2Jsound: nothing was found": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"model.norm.weight": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"model.norm.weight": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}},
        {"model.norm.weight": {"dtype": "F32", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}},
        {f"model.layers.{10**20}.mlp.up_proj.weight": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}},
        b'{"a": {"dtype": "U8", "shape": [-0], "data_offsets": [0, 0]}}',
        {},
    ],
    ids=["escapes", "below a byte", "exponents", "huge beside 0", "layer", "negative zero", "empty"],
)
def test_weights_that_are_none(
    header: Any, with_base: bool, case: Callable[[str], Case], hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tensors of odd names, dtypes and shapes in the weights' place are faults; a terminal obeys none of them."""
    tensors = header.values() if isinstance(header, dict) else []
    size = max((entry["data_offsets"][1] for entry in tensors), default=0)
    (hostile / "model.safetensors").write_bytes(raw_shard(header, bytes(size)))
    faulty(case("tied"), hostile, with_base)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\nsound: nothing was found" not in printed


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a\0.safetensors", "a\n.safetensors", f"{'x' * 300}.safetensors"],
    ids=ascii,
)
def test_an_index_that_leads_elsewhere(name: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """An index that names files outside the checkpoint, or names that are none, is a fault, and not followed."""
    checkpoint = tmp_path / "elsewhere"
    copy_checkpoint(case("untied").sound, checkpoint)
    edit_json(checkpoint / INDEX, lambda content: content["weight_map"].update({"model.norm.weight": name}))
    report = faulty(case("untied"), checkpoint)
    assert report.faults[0].id == "index-broken"


@pytest.mark.parametrize("layers", [10**9, -1, None, "3"])
def test_a_layer_count_that_is_none(layers: Any, case: Callable[[str], Case], hostile: Path) -> None:
    """A billion layers are not built to see what they store, with nothing beside the config that says otherwise."""
    (hostile / "pruning.json").unlink()

    def change(config: dict[str, Any]) -> None:
        config.pop("layer_types", None)
        config["num_hidden_layers"] = layers

    edit_config(hostile, change)
    for base in (case("tied").base, None):
        try:
            report = judge(case("tied"), hostile, base=base, keyword=STORED)
        except CannotRun as error:
            reason = str(error)
        else:
            assert report.verdict == "faulty", told(report)
            reason = report.faults[0].cause
        assert reason.isprintable(), reason


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("where", ["checkpoint", "both"])
def test_a_chat_template_without_end(
    where: str, case: Callable[[str], Case], hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat template that computes for days is stopped, and told: a fault, or, where it is the base's, a finding."""
    monkeypatch.setattr("harness.text.chat_templates.MOST_SECONDS", 0.2)
    copy_checkpoint(case("tied").base, tmp_path / "base")
    for root in [hostile, *([tmp_path / "base"] if where == "both" else [])]:
        edit_json(root / "tokenizer_config.json", lambda content: content.update(chat_template=ENDLESS))
    report = judge(case("tied"), hostile, base=tmp_path / "base", keyword="stored.tokenizer or text")
    told_so = "the chat template had not ended after 0.2 seconds"
    if where == "both":
        assert report.faults == (), told(report)
        assert told_so in report.findings
    else:
        assert report.faults[0].family == "tokenizer"
        assert "TimeoutError: the chat template had not" in str(report.faults[0].evidence), report.faults[0].evidence


# Tried in more ways than the library allows, from the first letter of any text.
ENDLESS_SPLIT = {"type": "Split", "pattern": {"Regex": "(.|..)+$(?!$)"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize("where", ["checkpoint", "both", "alone"])
def test_a_regular_expression_without_end(
    where: str, case: Callable[[str], Case], hostile: Path, tmp_path: Path
) -> None:
    """A tokenizer whose regular expression tries all ways is a fault where the base's is none; no check is lost."""
    copy_checkpoint(case("tied").base, tmp_path / "base")
    for root in [hostile, *([tmp_path / "base"] if where == "both" else [])]:
        edit_json(root / "tokenizer.json", lambda content: content.update(pre_tokenizer=ENDLESS_SPLIT))
    base = None if where == "alone" else tmp_path / "base"
    report = judge(case("tied"), hostile, base=base, keyword="stored or load or text or natural", **PLAIN)
    if where == "checkpoint":
        assert report.faults[0].family == "tokenizer", told(report)
        assert "the tokenizers library panics: Onig: " in str(report.faults[0].evidence), report.faults[0].evidence
    else:
        assert report.faults == (), told(report)
    assert record(report, "plain-float32.load").outcome == "passed"


def test_a_regular_expression_without_end_in_a_scan(case: Callable[[str], Case], tmp_path: Path) -> None:
    """A scan with such a tokenizer is refused in one line."""
    copy_checkpoint(case("tied").base, tmp_path / "base")
    edit_json(tmp_path / "base" / "tokenizer.json", lambda content: content.update(pre_tokenizer=ENDLESS_SPLIT))
    with pytest.raises(CannotRun, match=r"^the tokenizer cannot read the text, its library panics: Onig: [^\n]+$"):
        scan_checkpoint(tmp_path / "base", out=tmp_path / "out")


def test_json_that_is_no_file_says_so(tmp_path: Path) -> None:
    """The judge's reader of JSON says of a FIFO, a directory and a missing file what they are."""
    os.mkfifo(tmp_path / "fifo")
    for path, reason in {
        tmp_path / "fifo": "it is no regular file",
        tmp_path: "it is no regular file",
        tmp_path / "none": "No such file or directory",
    }.items():
        with pytest.raises(ValueError, match=exactly(reason)):
            read_json(path)
