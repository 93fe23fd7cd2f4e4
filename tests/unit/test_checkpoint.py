import errno
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pruning
from pruning import CheckpointError, DestinationError, PlanError, PrunePlan, prune_checkpoint, removed_bytes
from pruning import prune as checkpoint
from pruning.families import FAMILIES
from pruning.writing import byte_copy
from tests.unit.checkpoints import (
    ELEMENT_BYTES,
    cards,
    exactly,
    keys_of_model,
    plan_lists,
    read_files,
    read_tensors,
    run_python,
    tiny_config,
    write_checkpoint,
    write_weights,
)

CODE_FILES = [
    "configuration_pruned_qwen3.py",
    "modeling_pruned_qwen3.py",
    "hollow_modules.py",
    "per_layer_skip.py",
    "pruned_models.py",
]
PLAN = PrunePlan(self_attn=(0, 2), mlp=(1, 2))


@st.composite
def sources(draw):
    """Draw the arguments of `write_drawn`: a tiny checkpoint, whose shards need not be equal."""
    layers = draw(st.integers(1, 4))
    keys = keys_of_model(layers, prefix=draw(st.sampled_from(["model.", ""])), tied=draw(st.booleans()))
    if draw(st.booleans()):
        keys = [key for key in keys if "layers." in key and "norm" not in key]  # so that a plan can empty the file
    order = draw(st.permutations(keys))
    tensor = st.tuples(st.sampled_from(sorted(ELEMENT_BYTES)), st.lists(st.integers(0, 3), max_size=2))
    shards = draw(st.integers(1, len(keys)))
    metadata = st.sampled_from([None, {}, {"format": "pt"}, {"a": "b", "format": "pt"}])
    return {
        "layers": layers,
        "tensors": {key: draw(tensor) for key in order},
        "shards": shards,
        "metadata": [draw(metadata) for _ in range(shards)],
        "card": draw(st.none() | cards()),
        "config": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "per_layer_config": st.just({"00": {"sliding_window": 3}}),
                    "rms_norm_eps": st.floats(1e-9, 1),
                    "tie_word_embeddings": st.booleans(),
                },
            )
        ),
    }


def write_drawn(root, drawn):
    """Write a checkpoint that `sources` drew."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    write_weights(root, drawn["tensors"], shards=drawn["shards"], metadata=drawn["metadata"])
    (root / "config.json").write_text(json.dumps(tiny_config(drawn["layers"]) | drawn["config"]))
    (root / "tokenizer.json").write_text("{}")
    if drawn["card"] is not None:
        (root / "README.md").write_bytes(drawn["card"])
    return root


def under(key, plan):
    """Say whether a key lies under a pruned sub-layer, by spelling out every prefix there is."""
    return key.startswith(
        tuple(
            f"{prefix}layers.{layer_idx}.{sublayer}."
            for prefix in ("model.", "")
            for sublayer in ("self_attn", "mlp")
            for layer_idx in getattr(plan, sublayer)
        )
    )


def require_pruned(source, destination, plan):
    """Check all that must hold of the weights and the index of a pruned checkpoint."""
    expected = {key: tensor for key, tensor in read_tensors(source).items() if not under(key, plan)}
    assert read_tensors(destination) == expected
    shards = sorted(path.name for path in destination.glob("*.safetensors"))
    index = destination / "model.safetensors.index.json"
    if len(shards) == 1:
        assert shards == ["model.safetensors"]
        assert not index.exists()
        return
    count = len(shards)
    assert shards == [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    content = json.loads(index.read_text())
    assert content["metadata"]["total_size"] == sum(len(data) for _, _, data in expected.values())
    assert content["weight_map"].keys() == expected.keys()
    for name in shards:
        shard = destination.parent / "one-shard"
        shutil.rmtree(shard, ignore_errors=True)
        shard.mkdir()
        shutil.copy(destination / name, shard)
        held = {key for key, value in content["weight_map"].items() if value == name}
        assert held == read_tensors(shard).keys() != set()


@given(drawn=sources(), data=st.data())
def test_a_pruned_checkpoint_is_the_source_less_the_pruned(tmp_path, drawn, data):
    """The keys are the source's less the pruned, each tensor byte for byte; the index fits; the source is untouched."""
    source, destination = write_drawn(tmp_path / "source", drawn), tmp_path / "out"
    plan = PrunePlan(**data.draw(plan_lists(drawn["layers"])))
    before, written = read_files(source), []
    checksum = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as small:  # so that tensors lie across buffers and shares, as large ones do
        small.setattr(byte_copy, "_BUFFER_BYTES", data.draw(st.sampled_from([1, 5, 12, 1000])))
        small.setattr(byte_copy, "_SHARE_BYTES", data.draw(st.sampled_from([1, 24, 1000])))
        result = prune_checkpoint(
            source,
            destination,
            plan,
            overwrite=True,
            checksum=checksum,
            sync=False,
            progress=lambda *counts: written.append(counts),
        )
    require_pruned(source, destination, plan)
    manifest = json.loads((destination / "pruning.json").read_text())
    for key, (_, _, content) in read_tensors(destination).items():
        assert manifest["kept"][key].get("sha256") == (hashlib.sha256(content).hexdigest() if checksum else None)
    assert read_files(source) == before

    sizes = {key: len(data) for key, (_, _, data) in read_tensors(source).items()}
    kept = {key: size for key, size in sizes.items() if not under(key, plan)}
    assert result.bytes_before == sum(sizes.values())
    assert result.bytes_after == sum(kept.values()) == sum(count for count, _ in written)
    assert {total for _, total in written} <= {result.bytes_after}
    assert (result.tensors_kept, result.tensors_pruned) == (len(kept), len(sizes) - len(kept))
    assert result.shards == len(list(destination.glob("*.safetensors")))
    assert result.plan == plan
    assert result.destination == destination
    assert removed_bytes(source, plan) == result.bytes_before - result.bytes_after

    config = json.loads((destination / "config.json").read_text())
    assert PrunePlan.from_config(config) == plan


@given(drawn=sources(), data=st.data())
def test_a_then_b_is_a_and_b_at_once(tmp_path, drawn, data):
    """Pruning by A and then by B writes the same bytes, in every file, as pruning by both at once."""
    source = write_drawn(tmp_path / "source", drawn)
    first, second = (PrunePlan(**data.draw(plan_lists(drawn["layers"]))) for _ in range(2))
    options = {"overwrite": True, "sync": False, "checksum": data.draw(st.booleans())}
    # What the first writes of checksums is none of the second's business.
    prune_checkpoint(source, tmp_path / "a", first, overwrite=True, sync=False, checksum=data.draw(st.booleans()))
    prune_checkpoint(tmp_path / "a", tmp_path / "a-then-b", second - first, **options)
    prune_checkpoint(source, tmp_path / "at-once", first | second, **options)
    assert read_files(tmp_path / "a-then-b") == read_files(tmp_path / "at-once")


def test_pruning_what_is_pruned_changes_nothing(tmp_path):
    """A plan that is in force already, again or in part, writes the same checkpoint once more."""
    source = write_checkpoint(tmp_path / "source", shards=3)
    prune_checkpoint(source, tmp_path / "once", PLAN)
    for number, plan in enumerate([PLAN, PrunePlan(), PrunePlan(mlp=(2,))]):
        result = prune_checkpoint(tmp_path / "once", tmp_path / str(number), plan)
        assert read_files(tmp_path / str(number)) == read_files(tmp_path / "once")
        assert (result.plan, result.tensors_pruned) == (PLAN, 0)


@pytest.mark.parametrize("checksum", [True, False])
def test_every_file_of_a_pruned_checkpoint(tmp_path, checksum):
    """A pruned checkpoint holds config, code, manifest, weights and companions, and nothing else."""
    source = write_checkpoint(tmp_path / "source", metadata={"format": "pt"})
    (source / "tokenizer.json").write_bytes(b"\x00\r\n\xff")
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    files = read_files(tmp_path / "out")
    others = {"config.json", "pruning.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert files.keys() == {*others, *CODE_FILES}
    assert files["tokenizer.json"] == b"\x00\r\n\xff"
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_the_code_is_verbatim(tmp_path):
    """The Python files of a pruned checkpoint are byte for byte those of the package."""
    prune_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "out", PLAN)
    remote = Path(pruning.__file__).parent / "remote"
    for name in CODE_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (remote / name).read_bytes()
    assert FAMILIES[0].code_files().keys() == set(CODE_FILES)


def test_the_config(tmp_path):
    """The config is the source's, with the family's type, class and code, and the plan in transformers' words."""
    per_layer_config = {"1": {"sliding_window": 7}, "0": {"head_dim": 2}}
    source = write_checkpoint(tmp_path / "source", config={"per_layer_config": per_layer_config, "extra": [1.5, None]})
    prune_checkpoint(source, tmp_path / "out", PLAN)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        **json.loads((source / "config.json").read_text()),
        "model_type": "pruned_qwen3",
        "architectures": ["PrunedQwen3ForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_pruned_qwen3.PrunedQwen3Config",
            "AutoModel": "modeling_pruned_qwen3.PrunedQwen3Model",
            "AutoModelForCausalLM": "modeling_pruned_qwen3.PrunedQwen3ForCausalLM",
        },
        "per_layer_config": {
            "0": {"head_dim": 2, "skip": ["attention"]},
            "1": {"sliding_window": 7, "skip": ["mlp"]},
            "2": {"skip": ["attention", "mlp"]},
        },
    }


def test_nothing_pruned(tmp_path):
    """An empty plan gives a pruned checkpoint of all the tensors, without a `per_layer_config`."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    result = prune_checkpoint(source, tmp_path / "out", PrunePlan())
    assert read_tensors(tmp_path / "out") == read_tensors(source)
    assert (result.tensors_pruned, result.bytes_after) == (0, result.bytes_before)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "pruned_qwen3"
    assert "per_layer_config" not in config


@pytest.mark.parametrize("shards", [1, 35])
def test_everything_pruned(tmp_path, shards):
    """A plan of every sub-layer leaves embedding and norms; the shards that it empties go, the rest are renumbered."""
    source = write_checkpoint(tmp_path / "source", shards=shards)
    every = PrunePlan(self_attn=range(3), mlp=range(3))
    result = prune_checkpoint(source, tmp_path / "out", every)
    require_pruned(source, tmp_path / "out", every)
    assert result.shards == (1 if shards == 1 else 8)
    assert sorted(key.rpartition(".")[0].rpartition(".")[2] for key in read_tensors(tmp_path / "out")) == (
        ["embed_tokens"] + ["input_layernorm"] * 3 + ["norm"] + ["post_attention_layernorm"] * 3
    )


def test_the_manifest(tmp_path):
    """The manifest describes source, plan, tool, code, each kept tensor with its checksum, each pruned one's size."""
    source = write_checkpoint(tmp_path / "source", layers=1, dtype="F32")
    (source / "tokenizer.json").write_text("{}")
    described = {
        "name": "source",
        "config": json.loads((source / "config.json").read_text()),
        "files": {"tokenizer.json": hashlib.sha256(b"{}").hexdigest()},
    }
    prune_checkpoint(source, tmp_path / "out", PrunePlan(mlp=(0,)))
    tensors = read_tensors(source)
    pruned = [f"model.layers.0.mlp.{name}_proj.weight" for name in ("down", "gate", "up")]
    assert json.loads((tmp_path / "out" / "pruning.json").read_text()) == {
        "format": 1,
        "tool": {"name": "prunecheck", "version": pruning.__version__},
        "source": described,
        "plan": {"self_attn": [], "mlp": [0]},
        "code": {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in CODE_FILES},
        "kept": {
            key: {"dtype": "F32", "shape": [2, 3], "sha256": hashlib.sha256(data).hexdigest()}
            for key, (_, _, data) in tensors.items()
            if key not in pruned
        },
        "pruned": {key: {"dtype": "F32", "shape": [2, 3], "bytes": 24} for key in pruned},
    }
    prune_checkpoint(tmp_path / "out", tmp_path / "more", PrunePlan(self_attn=(0,)), checksum=False)
    manifest = json.loads((tmp_path / "more" / "pruning.json").read_text())
    assert manifest["source"] == described
    assert manifest["plan"] == {"self_attn": [0], "mlp": [0]}
    assert len(manifest["pruned"]) == 9
    assert all(entry.keys() == {"dtype", "shape"} for entry in manifest["kept"].values())


def test_a_pruned_source_without_a_manifest(tmp_path):
    """If a pruned source has lost its manifest, the new one names that source and what was pruned in it."""
    prune_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "first", PrunePlan(mlp=(0,)))
    (tmp_path / "first" / "pruning.json").unlink()
    prune_checkpoint(tmp_path / "first", tmp_path / "second", PrunePlan(self_attn=(1,)))
    manifest = json.loads((tmp_path / "second" / "pruning.json").read_text())
    assert (manifest["source"]["name"], manifest["source"]["plan"]) == ("first", {"self_attn": [], "mlp": [0]})
    assert manifest["plan"] == {"self_attn": [1], "mlp": [0]}


def test_a_pruned_source_that_is_not_what_its_manifest_says(tmp_path):
    """A byte that differs from the manifest of a pruned source is found while it is copied; nothing is written."""
    prune_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "first", PrunePlan(mlp=(0,)))
    weights = tmp_path / "first" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    message = "the bytes of 'model.norm.weight' have sha256 [0-9a-f]{64}, but pruning.json says [0-9a-f]{64}$"
    with pytest.raises(CheckpointError, match=message):
        prune_checkpoint(tmp_path / "first", tmp_path / "second", PrunePlan(self_attn=(1,)))
    assert sorted(os.listdir(tmp_path)) == ["first", "source"]


def test_a_plan_out_of_range(tmp_path):
    """A plan beyond the source's layers is refused before anything is written."""
    source = write_checkpoint(tmp_path / "source")
    with pytest.raises(PlanError, match=exactly("mlp index 3 is out of range: the checkpoint has layers 0 to 2")):
        prune_checkpoint(source, tmp_path / "out", PrunePlan(mlp=(3,)))
    assert os.listdir(tmp_path) == ["source"]


def test_apart_from_the_source(tmp_path, monkeypatch):
    """A destination that is, lies in or holds the source is refused, through links too, with overwrite too."""
    source = write_checkpoint(tmp_path / "all" / "source")
    (tmp_path / "link").symlink_to("all")
    before = read_files(tmp_path)
    monkeypatch.chdir(source)
    aside, link = "name a directory", tmp_path / "link" / "source"
    for given_source, destination, message in [
        (source, source, f"{source} is the source itself: name another directory"),
        (source, Path("."), ". is the source itself: name another directory"),
        (Path("."), source, f"{source} is the source itself: name another directory"),
        (source, link, f"{link} is the source itself: name another directory"),
        (source, source / "out", f"{source}/out lies inside the source {source}: {aside} outside it"),
        (source, Path("a/b"), f"a/b lies inside the source {source}: {aside} outside it"),
        (source, link / "out", f"{link}/out lies inside the source {source}: {aside} outside it"),
        (link, source / "out", f"{source}/out lies inside the source {link}: {aside} outside it"),
        (source, tmp_path / "all", f"{tmp_path}/all holds the source {source}: {aside} beside it"),
        (source, tmp_path / "link", f"{tmp_path}/link holds the source {source}: {aside} beside it"),
        (source, tmp_path, f"{tmp_path} holds the source {source}: {aside} beside it"),
    ]:  # fmt: skip
        for overwrite in (True, False):
            with pytest.raises(DestinationError, match=exactly(message)):
                prune_checkpoint(given_source, destination, PLAN, overwrite=overwrite)
    assert read_files(tmp_path) == before


def test_a_destination_that_holds_what_the_source_links_to(tmp_path):
    """A directory to which the source's files are links is part of the source: overwrite would destroy it."""
    real = write_checkpoint(tmp_path / "real", shards=2)
    view = tmp_path / "view"
    view.mkdir()
    shutil.copy(real / "config.json", view)
    for path in real.glob("model*"):
        (view / path.name).symlink_to(path)
    before = read_files(tmp_path)
    message = f"{real} holds what {view}/model-00001-of-00002.safetensors links to: name a directory beside it"
    with pytest.raises(DestinationError, match=exactly(message)):
        prune_checkpoint(view, real, PLAN, overwrite=True)
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("sync", [True, False])
def test_overwrite(tmp_path, sync):
    """An existing destination is refused, and with overwrite replaced as a whole."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    out = tmp_path / "out"
    prune_checkpoint(source, out, PLAN, sync=sync)
    (out / "more").write_text("x")
    before = read_files(out)
    message = f"{out} exists: name another directory, or replace it with --overwrite"
    with pytest.raises(DestinationError, match=exactly(message)):
        prune_checkpoint(source, out, PrunePlan(), sync=sync)
    assert read_files(out) == before
    prune_checkpoint(source, out, PrunePlan(), overwrite=True, sync=sync)
    require_pruned(source, out, PrunePlan())
    assert not (out / "more").exists()


def fail_after(calls, function, exception):
    """Return `function` that raises from the n-th call on."""
    done = []

    def failing(*args, **kwargs):
        done.append(args)
        if len(done) > calls:
            raise exception
        return function(*args, **kwargs)

    return failing


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("calls", range(0, 8, 2))
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left(tmp_path, monkeypatch, old, calls, kind):
    """A device that is full is an error that says how many bytes are needed; nothing is left, the old is kept."""
    source, out = write_checkpoint(tmp_path / "source", shards=3), tmp_path / "out"
    if old:
        prune_checkpoint(source, out, PrunePlan())
    before = read_files(tmp_path)
    needed = sum(len(data) for key, (_, _, data) in read_tensors(source).items() if not under(key, PLAN))
    full = OSError(kind, os.strerror(kind))
    monkeypatch.setattr(os, "pwrite", fail_after(calls, os.pwrite, full))
    monkeypatch.setattr(os, "copy_file_range", fail_after(calls, os.copy_file_range, full))
    message = f"{out} needs {needed} bytes, for which no space is left: free some, or name another device"
    for checksum in (True, False):
        with pytest.raises(DestinationError, match=exactly(message)):
            prune_checkpoint(source, out, PLAN, overwrite=old, checksum=checksum)
    monkeypatch.undo()
    assert read_files(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == (["out", "source"] if old else ["source"])


def test_no_space_left_for_the_small_files(tmp_path, monkeypatch):
    """A device that fills up behind the weights is the same error."""
    source, out = write_checkpoint(tmp_path / "source", shards=2), tmp_path / "out"
    monkeypatch.setattr(os, "fsync", fail_after(6, os.fsync, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(DestinationError, match=r"no space is left"):
        prune_checkpoint(source, out, PLAN)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("kind", ["EXDEV", "ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM", "EIO", "no bytes"])
@pytest.mark.parametrize("calls", [0, 2])
def test_where_the_kernel_cannot_copy(tmp_path, monkeypatch, kind, calls):
    """Where `copy_file_range` does not work, at first or after a while, the bytes are read and written instead."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "expected", PLAN, checksum=False)
    monkeypatch.setattr(byte_copy, "_BUFFER_BYTES", 4)  # so that there are several parts
    copy_file_range = os.copy_file_range

    def copy_a_little(source_file, output_file, count, **offsets):
        return copy_file_range(source_file, output_file, min(count, 5), **offsets)

    if kind == "no bytes":
        monkeypatch.setattr(os, "copy_file_range", lambda *_, **__: 0)
    else:
        error = OSError(getattr(errno, kind), "planted")
        monkeypatch.setattr(os, "copy_file_range", fail_after(calls, copy_a_little, error))
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=False)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "expected")


@pytest.mark.parametrize("checksum", [True, False])
def test_short_writes_and_reads(tmp_path, monkeypatch, checksum):
    """A system that writes and reads a few bytes at a time gives the same checkpoint."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "expected", PLAN, checksum=checksum)
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:5]], offset))
    monkeypatch.setattr(os, "copy_file_range", lambda *_, **__: 0)
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "expected")


def change(shard, kind):
    """Change a file in one of several ways."""
    content, status = shard.read_bytes(), shard.stat()
    if kind == "truncate":
        os.truncate(shard, len(content) - 1)
    elif kind == "grow":
        shard.write_bytes(content + b"x")
    elif kind == "rewrite":
        shard.write_bytes(content[:-1] + b"x")
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    else:
        new = shard.with_name("new")
        new.write_bytes(content[:-1] + b"x")
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        new.rename(shard)


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("kind", ["truncate", "grow", "rewrite", "replace"])
def test_a_source_that_changes_before_it_is_copied(tmp_path, monkeypatch, checksum, kind):
    """A source that is cut, grows, is written to or replaced before it is copied is an error, and leaves nothing."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    shard, write_shards = source / "model-00002-of-00002.safetensors", checkpoint.write_shards

    def changed(*args, **kwargs):
        change(shard, kind)
        return write_shards(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "write_shards", changed)
    message = f"{shard} changed while it was read: try again when nothing writes to it"
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert os.listdir(tmp_path) == ["source"]


def before_reads(monkeypatch, act):
    """Have `act` called with the path of the file before anything copies bytes out of it."""

    def acting(function):
        def wrapped(file, *args, **kwargs):
            act(Path(os.readlink(f"/proc/self/fd/{file}")))
            return function(file, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "preadv", acting(os.preadv))
    monkeypatch.setattr(os, "copy_file_range", acting(os.copy_file_range))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("kind", ["truncate", "grow", "rewrite"])
def test_a_source_that_changes_while_it_is_copied(tmp_path, monkeypatch, checksum, kind):
    """A source that is cut, grows or is written to while its bytes are copied is an error, and leaves nothing."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    shard, changes = source / "model-00002-of-00002.safetensors", []

    def change_once(path):
        if path == shard and not changes:
            changes.append(change(shard, kind))

    before_reads(monkeypatch, change_once)
    message = f"{shard} changed while it was read: try again when nothing writes to it"
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("checksum", [True, False])
def test_shards_are_copied_side_by_side(tmp_path, monkeypatch, checksum):
    """Two shards are copied at a time: where the copying of each waits for that of the other, both are copied."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    both, begun = threading.Barrier(2, timeout=10), set()

    def meet(path):
        if path not in begun:
            begun.add(path)
            both.wait()

    before_reads(monkeypatch, meet)
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert len(begun) == 2
    require_pruned(source, tmp_path / "out", PLAN)


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("number", [1, 4, 7])
def test_an_error_of_one_of_many_shards(tmp_path, monkeypatch, checksum, number):
    """Whichever of many shards cannot be read, the error names it, and nothing is left."""
    source = write_checkpoint(tmp_path / "source", layers=8, shards=7)
    shard = source / f"model-{number:05d}-of-00007.safetensors"

    def fail(path):
        if path == shard:
            raise OSError(errno.EIO, "Input/output error")

    before_reads(monkeypatch, fail)
    with pytest.raises(CheckpointError, match=rf"^{shard} cannot be read at byte \d+: Input/output error$"):
        prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert os.listdir(tmp_path) == ["source"]


def test_a_source_that_cannot_be_read(tmp_path, monkeypatch):
    """A read error of the source is blamed on the source, with the byte, also where the kernel copies."""
    source = write_checkpoint(tmp_path / "source")
    broken = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(os, "preadv", fail_after(0, os.preadv, broken))
    monkeypatch.setattr(os, "copy_file_range", fail_after(0, os.copy_file_range, broken))
    for checksum in (True, False):
        pattern = rf"^{source}/model\.safetensors cannot be read at byte \d+: Input/output error$"
        with pytest.raises(CheckpointError, match=pattern):
            prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("checksum", [True, False])
def test_each_kept_byte_is_read_once(tmp_path, monkeypatch, checksum):
    """The kept tensors' bytes are read once each, and none of the pruned, whether they are hashed or not."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    preadv, copy_file_range, read = os.preadv, os.copy_file_range, []

    def watched_preadv(file, buffers, offset):
        count = preadv(file, buffers, offset)
        read.append((os.readlink(f"/proc/self/fd/{file}"), offset, count))
        return count

    def watched_copy(source_file, output_file, count, *, offset_src, offset_dst):
        count = copy_file_range(source_file, output_file, count, offset_src=offset_src, offset_dst=offset_dst)
        read.append((os.readlink(f"/proc/self/fd/{source_file}"), offset_src, count))
        return count

    monkeypatch.setattr(os, "preadv", watched_preadv)
    monkeypatch.setattr(os, "copy_file_range", watched_copy)
    result = prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    offsets = [(path, offset + byte) for path, offset, count in read for byte in range(count)]
    assert len(offsets) == len(set(offsets)) == result.bytes_after > 0


def test_a_destination_that_cannot_be_written(tmp_path):
    """A parent that is a file, and a name too long for the file system, are errors that name the destination."""
    source = write_checkpoint(tmp_path / "source")
    (tmp_path / "file").write_text("x")
    for destination, reason in {
        tmp_path / "file" / "out": "File exists",
        tmp_path / "file" / "more" / "out": "Not a directory",
        tmp_path / ("x" * 250): "File name too long",
        Path("/proc/out"): "No such file or directory",
    }.items():
        with pytest.raises(DestinationError, match=exactly(f"{destination} cannot be written: {reason}")):
            prune_checkpoint(source, destination, PLAN)


def test_a_parent_that_may_not_be_written(tmp_path, monkeypatch):
    """A parent in which nothing may be made is one line."""
    source = write_checkpoint(tmp_path / "source")

    def denied(path, *mode):  # planted, since root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", denied)
    with pytest.raises(DestinationError, match=exactly(f"{tmp_path}/out cannot be written: Permission denied")):
        prune_checkpoint(source, tmp_path / "out", PLAN)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_prune_leaves_nothing(tmp_path, exception):
    """Ctrl-C while the bytes are copied leaves no directory, and the source as it was."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    before, calls = read_files(source), []

    def interrupt(count, total):
        calls.append(count)
        if len(calls) == 3:
            raise exception

    with pytest.raises(exception):
        prune_checkpoint(source, tmp_path / "out", PLAN, progress=interrupt)
    assert os.listdir(tmp_path) == ["source"]
    assert read_files(source) == before


# Kills itself when it is about to open the n-th file for writing, or to rename the whole directory.
KILLED = """
import os, signal, sys
from pathlib import Path
from pruning import PrunePlan, prune_checkpoint
from pruning.writing import staging

left, opened, rename, exchange = int(sys.argv[3]), Path.open, Path.rename, staging.exchange

def step():
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

def counted_open(self, mode="r", *args, **kwargs):
    if "x" in mode or "w" in mode:
        step()
    return opened(self, mode, *args, **kwargs)

def counted_rename(self, target):
    step()
    return rename(self, target)

def counted_exchange(first, second):
    step()
    return exchange(first, second)

Path.open, Path.rename, staging.exchange = counted_open, counted_rename, counted_exchange
prune_checkpoint(sys.argv[1], sys.argv[2], PrunePlan(mlp=(0,)), overwrite=True)
"""


@pytest.mark.parametrize("old", [True, False])
def test_a_kill_at_any_file_leaves_no_directory_that_loads(tmp_path, old):
    """Before the last file, config.json, no directory has one; the old is there or restored, the source untouched."""
    source, out = write_checkpoint(tmp_path / "source", shards=2), tmp_path / "out"
    (source / "tokenizer.json").write_text("{}")
    expected = tmp_path / "expected"
    prune_checkpoint(source, expected, PrunePlan(mlp=(0,)))
    before, complete = read_files(source), read_files(expected)
    shutil.rmtree(expected)
    if old:
        prune_checkpoint(source, out, PrunePlan())
    old_files = read_files(out)
    configs_in_staging, files = 0, -1
    while True:
        files += 1
        process = run_python(KILLED, source, out, files, check=False)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert read_files(source) == before
        (staged,) = tmp_path.glob(".out.prunecheck.*/new")
        if (staged / "config.json").exists():
            configs_in_staging += 1
            assert read_files(staged) == complete
        else:
            assert read_files(out) in (old_files, complete)
        with pytest.raises(KeyboardInterrupt):  # a next run that does not come far, but puts things right
            prune_checkpoint(source, out, PrunePlan(), overwrite=True, progress=fail_after(0, None, KeyboardInterrupt))
        assert read_files(out) in (old_files, complete)
        if read_files(out) != old_files:
            shutil.rmtree(out)
            prune_checkpoint(source, out, PrunePlan())
    assert files == len(complete) + 1  # the new takes its place
    assert configs_in_staging == 1
    assert read_files(out) == complete
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]


def test_torch_is_not_imported(tmp_path):
    """Pruning imports neither torch nor transformers, nor numpy, which the safetensors library can do without."""
    source = write_checkpoint(tmp_path / "source")
    code = (
        "import sys; from pruning import PrunePlan, prune_checkpoint, audit_checkpoint\n"
        "prune_checkpoint(sys.argv[1], sys.argv[2], PrunePlan(mlp=(0,))); audit_checkpoint(sys.argv[2])\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    run_python(code, source, tmp_path / "out")


# Peak resident memory from the kernel's own mark, which unlike ru_maxrss begins anew with the program.
PEAK = """
import json, sys
import rich.console, rich.progress, rich.table, typer
from pruning import PrunePlan, prune_checkpoint
plan = PrunePlan(mlp=json.loads(sys.argv[3]))
prune_checkpoint(*sys.argv[1:3], plan, sync=False, checksum=sys.argv[4] == "checksum")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def peak_memory(source, destination, layers, checksum):
    """Return the peak resident memory, in bytes, of pruning the MLPs of some layers in a process of its own."""
    process = run_python(PEAK, source, destination, json.dumps(list(layers)), checksum, check=False)
    assert process.returncode == 0, process.stderr
    return int(process.stdout) * 1024


@pytest.fixture(scope="module")
def many_tensors(tmp_path_factory):
    """Return a checkpoint of 50,000 tensors in five shards."""
    root = tmp_path_factory.mktemp("many")
    names = [f"model.layers.{number % 12}.mlp.expert_{number}.weight" for number in range(50_000)]
    write_weights(root, dict.fromkeys(names, ("BF16", [2, 2])), shards=5)
    (root / "config.json").write_text(json.dumps(tiny_config(12)))
    return root


@pytest.mark.parametrize("checksum", ["checksum", "none"])
def test_memory_stays_under_150_megabytes_for_50_000_tensors(tmp_path, many_tensors, checksum):
    """Pruning 50,000 tensors, and what that leaves, with the command line's imports, stays small."""
    assert peak_memory(many_tensors, tmp_path / "first", [], checksum) < 150_000_000
    assert peak_memory(tmp_path / "first", tmp_path / "second", range(0, 12, 2), checksum) < 150_000_000


def test_50_000_tensors_are_planned_in_two_seconds(many_tensors):
    """Reading the headers of 50,000 tensors, and finding which of them go, takes a processor less than 2 s."""
    begin = time.process_time()
    removed_bytes(many_tensors, PrunePlan(mlp=(0, 2)))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("checksum", ["checksum", "none"])
def test_memory_does_not_grow_with_the_bytes(tmp_path, checksum):
    """Pruning a tensor of 200 MB, of which the file holds no block, takes little more memory than the imports."""
    source = write_checkpoint(tmp_path / "source")
    size = 200 * 2**20
    header = json.dumps(
        {
            "model.embed_tokens.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
            "model.layers.0.mlp.up_proj.weight": {"dtype": "U8", "shape": [1], "data_offsets": [size, size + 1]},
        }
    ).encode()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size + 1)
    assert peak_memory(source, tmp_path / "out", [0], checksum) < 60_000_000
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > size
