import json
import os
import re
import shutil

import pytest

from pruning import CheckpointError, PrunePlan, prune_checkpoint
from pruning.files.source import COMPANIONS, find_checkpoint, read_source, require_prunable
from tests.unit.checkpoints import (
    exactly,
    keys_of_model,
    raw_shard,
    read_files,
    run_python,
    write_checkpoint,
    write_shard,
    write_weights,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def source(tmp_path):
    """Return a checkpoint in two shards."""
    return write_checkpoint(tmp_path / "source", shards=2, metadata={"format": "pt"})


def edit_json(path, **changes):
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refused(root, message):
    """Check that pruning a checkpoint is refused with exactly this message and writes nothing."""
    before = read_files(root)
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(root, root.parent / "out", PrunePlan(mlp=(0,)))
    assert not (root.parent / "out").exists()
    assert read_files(root) == before


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_checkpoint_is_read_in_the_order_of_its_bytes(tmp_path, shards, prefix):
    """Every tensor of every shard is read, in the order of the shards' names and of their bytes."""
    write_checkpoint(tmp_path, shards=shards, prefix=prefix, tied=False)
    read = read_source(tmp_path)
    assert [tensor.name for tensor in read.tensors()] == keys_of_model(prefix=prefix, tied=False)
    assert len(read.shards) == shards
    assert read.plan.is_empty
    assert read.manifest is None
    assert read.family.model_type == "qwen3"
    require_prunable(read)


def test_no_config(source):
    """A directory without config.json is refused."""
    (source / "config.json").unlink()
    refused(source, f"{source}/config.json: no such file or directory")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON at line 1, column 1: Expecting value"),
        ('{"model_type": "qwen3",', "not JSON at line 1, column 24: Expecting property name enclosed in double quotes"),
        ("[]", "not a JSON object"),
        ('{"model_type": "qwen3", "model_type": "llama"}', "the key 'model_type' appears twice"),
    ],
)
def test_a_broken_config(source, content, message):
    """A config that is cut off, no object, or ambiguous is refused."""
    (source / "config.json").write_text(content)
    refused(source, f"{source}/config.json: {message}")


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe", "Qwen3", None, ["qwen3"]])
def test_another_family(source, model_type):
    """A model that is no Qwen3 is refused, with its model_type and those that are known."""
    edit_json(source / "config.json", model_type=model_type)
    refused(source, f"config.json: model_type is {model_type!r}, but only 'qwen3' can be pruned")


@pytest.mark.parametrize(
    "architectures", [["Qwen3ForSequenceClassification"], ["Qwen3ForCausalLM", "Other"], "Qwen3ForCausalLM", [["x"]], 1]
)
def test_another_architecture(source, architectures):
    """A Qwen3 with another head is refused: its head would be lost."""
    edit_json(source / "config.json", architectures=architectures)
    refused(source, f"{source}: architectures in config.json is {architectures!r}, but should be ['Qwen3ForCausalLM']")


@pytest.mark.parametrize("architectures", [None, []])
def test_no_architecture(source, architectures):
    """A config that names no architecture is that of a causal language model."""
    edit_json(source / "config.json", architectures=architectures)
    require_prunable(read_source(source))


@pytest.mark.parametrize(
    "auto_map", [{"AutoModelForCausalLM": "own.Own"}, {"AutoConfig": "own.OwnConfig"}, ["own.Own"], "own.Own"]
)
def test_modeling_code_of_its_own(source, auto_map):
    """A checkpoint that brings code is refused: the pruned one would run ours instead."""
    edit_json(source / "config.json", auto_map=auto_map)
    refused(
        source,
        f"{source} has modeling code of its own (auto_map in config.json), which a pruned checkpoint would lose",
    )


@pytest.mark.parametrize("quantization_config", [{"quant_method": "bitsandbytes"}, {}, "fp8"])
def test_a_quantised_source(source, quantization_config):
    """A quantised checkpoint is refused with the remedy."""
    edit_json(source / "config.json", quantization_config=quantization_config)
    refused(
        source,
        f"{source} is quantised (quantization_config in config.json): "
        "prune the unquantised checkpoint and quantise the result",
    )


@pytest.mark.parametrize(
    ("per_layer_config", "message"),
    [
        ({"7": {}}, "per_layer_config names layer 7, out of range: num_hidden_layers=3, so layers run from 0 to 2"),
        ({"1": {}, "01": {}}, "per_layer_config names layer 1 twice, as '1' and as '01': keep one"),
        (
            {"1": {"skip": ["ffn"]}},
            "per_layer_config['1']['skip'] has the unknown word 'ffn': only 'attention' and 'mlp' can be skipped",
        ),
    ],
)
def test_a_plan_that_cannot_be_meant(source, per_layer_config, message):
    """A source whose own plan is wrong is refused as a checkpoint, naming config.json."""
    edit_json(source / "config.json", per_layer_config=per_layer_config)
    refused(source, f"config.json: {message}")


def test_no_layer_count(source):
    """A config without the number of layers is refused."""
    edit_json(source / "config.json", num_hidden_layers=None)
    refused(source, "config.json: num_hidden_layers is None, but should be a positive number of layers")


def test_tensors_that_the_config_says_are_pruned(source):
    """A tensor that is stored though its config says that it is pruned is refused: one of the two is wrong."""
    edit_json(source / "config.json", per_layer_config={"0": {"skip": ["mlp"]}})
    refused(
        source,
        f"{source}: 'model.layers.0.mlp.gate_proj.weight' is stored in model-00001-of-00002.safetensors, "
        "but config.json says that it is pruned",
    )


def test_a_sublayer_without_tensors(tmp_path):
    """A plan for a sub-layer of which the checkpoint has no tensor is refused."""
    write_weights(tmp_path, {"model.embed_tokens.weight": ("F32", [2])})
    edit_json(write_checkpoint(tmp_path / "other") / "config.json")
    shutil.copy(tmp_path / "other" / "config.json", tmp_path)
    message = "there is no tensor of mlp in layer 0: keys should begin with model.layers.0.mlp."
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(tmp_path, tmp_path.parent / "out", PrunePlan(mlp=(0,)))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pth", "x.pt", "y.ckpt"]
)
def test_only_pickled_weights(source, name):
    """A checkpoint with only pickled weights is refused, with the remedy; they are never opened."""
    for path in source.glob("model*"):
        path.unlink()
    (source / name).write_bytes(b"\x80")
    refused(
        source,
        f"{source} has only pickled weights ({name}), which are never opened: "
        "save it as safetensors first, with save_pretrained of transformers",
    )


def test_no_weights(source):
    """A checkpoint without any weights is refused."""
    for path in source.glob("model*"):
        path.unlink()
    refused(source, f"{source} has no model.safetensors and no model.safetensors.index.json")


def test_shards_without_an_index(source):
    """Shards that no index names are no weights."""
    (source / "model.safetensors.index.json").unlink()
    refused(source, f"{source} has no model.safetensors and no model.safetensors.index.json")


def test_an_index_naming_an_absent_shard(source):
    """An index that names a shard which is not there is refused."""
    (source / "model-00002-of-00002.safetensors").unlink()
    refused(
        source,
        f"{source}/model.safetensors.index.json names model-00002-of-00002.safetensors, "
        "which is not there: fetch it again",
    )


def test_a_truncated_shard(source):
    """A shard that was cut off is refused with both sizes."""
    shard = source / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    refused(source, f"{shard} is truncated: it has {size - 1} bytes, but should have {size}")


def edit_weight_map(source, change):
    """Let `change` edit the weight map of the index, and return the index's path."""
    index = source / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    change(weight_map)
    edit_json(index, weight_map=weight_map)
    return index


def test_an_index_naming_a_tensor_that_its_shard_lacks(source):
    """A tensor that the index puts where it is not is refused: it is nowhere, or elsewhere."""
    index = edit_weight_map(source, lambda weights: weights.update(extra="model-00001-of-00002.safetensors"))
    refused(source, f"{index} puts 'extra' in model-00001-of-00002.safetensors, which does not hold it")
    index = edit_weight_map(
        source,
        lambda weights: (
            weights.pop("extra"),
            weights.update({"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}),
        ),
    )
    refused(
        source,
        f"{index} puts 'model.embed_tokens.weight' in model-00002-of-00002.safetensors, which does not hold it",
    )


def test_an_index_with_another_name_in_a_tensor_s_place(source):
    """An index that lists as many tensors as a shard holds, one of them under another name, is refused."""
    index = source / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"model.norm.weight"', '"model.norm.weights"'))
    refused(source, f"{index} does not name 'model.norm.weight', which model-00002-of-00002.safetensors holds")


def test_a_tensor_that_the_index_does_not_name(source):
    """A tensor that is stored in a shard but not in the index is refused."""
    index = edit_weight_map(source, lambda weights: weights.pop("model.norm.weight"))
    refused(source, f"{index} does not name 'model.norm.weight', which model-00002-of-00002.safetensors holds")


def test_a_tensor_stored_twice(source):
    """A tensor that two shards hold is refused: which one is meant is anyone's guess."""
    names = [*keys_of_model()[-17:], "model.embed_tokens.weight"]
    write_shard(source / "model-00002-of-00002.safetensors", {name: ("BF16", [2, 3]) for name in names}, None)
    message = f"{source}: 'model.embed_tokens.weight' is stored twice, also in model-00001-of-00002.safetensors"
    refused(source, message)


def test_both_a_single_file_and_an_index(source):
    """A single file beside an index is refused, since transformers loads the first whatever the index says."""
    (source / "model.safetensors").write_bytes(raw_shard({}))
    refused(
        source,
        f"{source} has both model.safetensors and model.safetensors.index.json, of which transformers loads the "
        "first: remove the stale one",
    )


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "weights.bin", "", ".", 5, None, "a\nb.safetensors"],
)  # fmt: skip
def test_an_index_naming_no_shard(source, name):
    """An index may name safetensors files of its own directory only."""
    index = edit_weight_map(source, lambda weights: weights.update({"model.norm.weight": name}))
    refused(
        source,
        f"{index}: the shard of 'model.norm.weight' is {name!r}, but should be a file name such as model.safetensors",
    )


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_without_a_weight_map(source, content):
    """An index must map keys to shards."""
    (source / "model.safetensors.index.json").write_text(content)
    refused(source, f"{source}/model.safetensors.index.json: it has no weight_map")


def test_a_broken_index(source):
    """An index that is no JSON, or names a key twice, is refused by its path."""
    index = source / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    refused(source, f"{index}: the key 'a' appears twice")
    index.write_text("x")
    refused(source, f"{index}: not JSON at line 1, column 1: Expecting value")


def test_sources_that_are_no_directory(tmp_path):
    """What is neither a directory nor a hub id is refused, and so is a revision of a directory."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(raw_shard({}))
    cases = {
        str(file): f"{file} is a file: name the directory that holds config.json",
        str(
            tmp_path / "none"
        ): f"{tmp_path}/none does not exist: name a checkpoint directory or a hub id such as Qwen/Qwen3-0.6B",
        "nowhere": "nowhere does not exist: name a checkpoint directory or a hub id such as Qwen/Qwen3-0.6B",
        "x" * 300: f"{'x' * 300} cannot be read: File name too long",
        "~no_such_user_/x": "~no_such_user_/x cannot be read: Could not determine home directory.",
    }
    for source, message in cases.items():
        with pytest.raises(CheckpointError, match=exactly(message)):
            find_checkpoint(source)
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(tmp_path / "Qwen" / "Qwen3-0.6B")
    message = f"{tmp_path} is a directory, which has no revision 'main': leave it out"
    with pytest.raises(CheckpointError, match=exactly(message)):
        find_checkpoint(tmp_path, "main")
    assert find_checkpoint(str(tmp_path)) == tmp_path


def test_companions_come_along_and_the_rest_is_listed(source):
    """Tokenizer, templates, generation config and licence come along; all else is left behind and listed."""
    along = [
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "chat_template.jinja", "additional_chat_templates/tool_use.jinja", "LICENSE", "LICENSE.txt",
        "NOTICE", "README.md",
    ]  # fmt: skip
    behind = [
        "pytorch_model.bin", "consolidated.safetensors", "model.gguf", "tf_model.h5", "model-00009.safetensors",
        "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state_0.pth",
        "training_args.bin", "trainer_state.json", ".gitattributes", "own_code.py",
        "additional_chat_templates/notes.txt",
    ]  # fmt: skip
    folders = [
        ".git/config",
        ".cache/huggingface/x",
        "onnx/model.onnx",
        "original/x.pth",
        "LICENSES/x",
        "global_step1/y",
    ]
    for name in (*along, *behind, *folders):
        (source / name).parent.mkdir(exist_ok=True, parents=True)
        (source / name).write_text(f"this is {name}")
    (source / "vocab.txt").symlink_to("nowhere")
    read = read_source(source)
    assert read.companions == tuple(sorted(along))
    folder_names = [f"{name.partition('/')[0]}/" for name in folders]
    assert read.left_behind == tuple(sorted([*behind, *folder_names, "vocab.txt"]))
    result = prune_checkpoint(source, source.parent / "out", PrunePlan(mlp=(0,)))
    assert result.left_behind == read.left_behind
    copied = read_files(source.parent / "out")
    assert copied.pop("README.md").endswith(b"this is README.md")
    assert all(copied[name] == f"this is {name}".encode() for name in along if name in copied)
    assert not copied.keys() & {*behind, *folders}


def test_left_behind_names_nothing_of_the_checkpoint_itself(source):
    """Config, index, shards, companions and, of a pruned source, manifest and code are not listed as left behind."""
    assert read_source(source).left_behind == ()
    prune_checkpoint(source, source.parent / "out", PrunePlan(mlp=(0,)))
    assert read_source(source.parent / "out").left_behind == ()


def test_companions_hold_no_weights_and_no_code():
    """No pattern of the allow-list lets weights or code through."""
    assert not [pattern for pattern in COMPANIONS if re.search(r"safetensors|\.bin|\.pt|\.py", pattern)]


def as_hub_cache(root, checkpoint, name="models--some-org--some-model"):
    """Move a checkpoint into the layout of the hub's cache, and return its snapshot's directory."""
    snapshot, blobs = root / name / "snapshots" / COMMIT, root / name / "blobs"
    for folder in (snapshot, blobs, root / name / "refs"):
        folder.mkdir(parents=True)
    (root / name / "refs" / "main").write_text(COMMIT)
    for number, path in enumerate(sorted(checkpoint.iterdir())):
        shutil.move(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_the_hub_cache_is_a_source(source, tmp_path):
    """A snapshot of symbolic links is pruned into plain files, and the manifest names its hub id and commit."""
    (source / "tokenizer.json").write_text("{}")
    snapshot = as_hub_cache(tmp_path / "hub", source)
    link = tmp_path / "link"
    link.symlink_to(snapshot)
    for number, path in enumerate((snapshot, link)):
        out = tmp_path / f"out{number}"
        prune_checkpoint(path, out, PrunePlan(mlp=(0,)))
        assert not any(entry.is_symlink() for entry in out.iterdir())
        assert (out / "tokenizer.json").read_text() == "{}"
        manifest = json.loads((out / "pruning.json").read_text())
        assert (manifest["source"]["name"], manifest["source"]["revision"]) == ("some-org/some-model", COMMIT)


def test_a_hub_cache_that_lacks_a_blob(source, tmp_path):
    """A snapshot whose link leads nowhere is refused like a missing shard."""
    snapshot = as_hub_cache(tmp_path / "hub", source)
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()
    message = (
        f"{snapshot}/model.safetensors.index.json names model-00002-of-00002.safetensors, "
        "which is not there: fetch it again"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(snapshot, tmp_path / "out", PrunePlan())


FIND = (
    "import sys; from pruning.files.source import find_checkpoint; print(find_checkpoint(sys.argv[1], *sys.argv[2:]))"
)


def test_a_hub_id_is_found_in_the_cache(source, tmp_path):
    """A hub id, alone or with a branch or a commit as revision, is found in the hub's cache without a network."""
    snapshot = as_hub_cache(tmp_path / "hub", source)
    for revision in ([], ["main"], [COMMIT]):
        found = run_python(
            FIND, "some-org/some-model", *revision, check=False, HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1"
        )
        assert found.stdout.strip() == str(snapshot), found.stderr


@pytest.mark.parametrize("arguments", [["some-org/other"], ["some-org/some-model", "f" * 40], ["some--org/x"]])
def test_a_hub_id_that_is_not_in_the_cache(source, tmp_path, arguments):
    """A hub id that cannot be had is refused in one line that begins with it."""
    as_hub_cache(tmp_path / "hub", source)
    code = FIND.replace("; print(", "\ntry: print(") + (
        "\nexcept __import__('pruning').CheckpointError as error: sys.exit(str(error))"
    )
    found = run_python(code, *arguments, check=False, HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    message = f"{arguments[0]} is not a local directory and cannot be fetched from the hub: "
    assert found.stderr.startswith(message), found.stderr
    assert found.stderr.count("\n") == 1
    assert len(found.stderr) > len(message) + 10
    assert found.returncode == 1
