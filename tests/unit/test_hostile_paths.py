"""A checkpoint whose names lead elsewhere, or to what is no file, is refused in one line, and nothing is written."""

import json
import os
import shutil
import stat
import sys

import pytest

from pruning import CheckpointError, DestinationError, PrunePlan, prune_checkpoint
from pruning.files.source import read_source
from tests.harness.command_line import run
from tests.unit.checkpoints import exactly, raw_shard, read_files, write_checkpoint

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"
PLAN = PrunePlan(mlp=(0,))


@pytest.fixture
def source(tmp_path):
    """Return a checkpoint in two shards, with a tokenizer and a model card."""
    root = write_checkpoint(tmp_path / "source", shards=2)
    (root / "tokenizer.json").write_text("{}")
    (root / "README.md").write_text("A model.")
    return root


def refused(root, message):
    """Check that pruning is refused with exactly this one line, and leaves nothing anywhere."""
    before = sorted(os.listdir(root.parent))
    assert message.isprintable()
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(root, root.parent / "out", PLAN)
    assert sorted(os.listdir(root.parent)) == before


def put_instead(path, kind):
    """Put something into a file's place that is none, or a link to it."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link to itself": path.name}[kind])


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device", "link to itself"])
@pytest.mark.parametrize("name", [SHARD, INDEX, "config.json"])
def test_what_is_no_file(source, name, kind):
    """A FIFO, which would be waited for, a directory, a device without end and a circular link are no weights."""
    put_instead(source / name, kind)
    message = f"{source / name} is not a regular file: put the file itself in its place"
    if kind == "link to itself":
        message = f"{source / name} cannot be read: Too many levels of symbolic links"
    if name == "config.json":
        reasons = {"directory": "is a directory", "link to itself": "too many levels of symbolic links"}
        message = f"{source / name}: {reasons.get(kind, 'not a regular file')}"
    refused(source, message)


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device"])
def test_a_manifest_that_is_no_file(source, kind):
    """The manifest of a pruned checkpoint is waited for as little."""
    pruned = source.parent / "pruned"
    prune_checkpoint(source, pruned, PLAN)
    put_instead(pruned / "pruning.json", kind)
    refused(pruned, f"{pruned}/pruning.json: {'is a directory' if kind == 'directory' else 'not a regular file'}")


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device", "link to itself"])
def test_companions_that_are_no_files_are_left_behind(source, kind):
    """A FIFO, a directory or a device under the name of a tokenizer is not copied, and is listed."""
    put_instead(source / "tokenizer.json", kind)
    result = prune_checkpoint(source, source.parent / "out", PLAN)
    assert result.left_behind == ("tokenizer.json/" if kind == "directory" else "tokenizer.json",)
    assert not (source.parent / "out" / "tokenizer.json").exists()


@pytest.mark.parametrize("name", ["config.json", INDEX, SHARD, "tokenizer.json", "README.md", "LICENSE"])
def test_links_out_of_the_checkpoint(source, name):
    """A file that is a link to one elsewhere is refused: what it leads to may be nobody else's business."""
    elsewhere = source.parent / "private"
    if (source / name).exists():
        shutil.move(source / name, elsewhere)
    else:
        elsewhere.write_text("a secret")
    (source / name).symlink_to("../private")
    where = f"{source / name} is a link to '{elsewhere}', which is outside the checkpoint"
    refused(source, f"{where}: put the file itself in its place")


def test_links_within_the_checkpoint(source):
    """A link to another file of the checkpoint is followed, and so is one to the checkpoint's directory."""
    (source / "blob").mkdir()
    shutil.move(source / SHARD, source / "blob" / "weights")
    (source / SHARD).symlink_to("blob/weights")
    (source.parent / "link").symlink_to("source")
    prune_checkpoint(source.parent / "link", source.parent / "out", PLAN)
    assert not any(path.is_symlink() for path in (source.parent / "out").iterdir())


def test_a_companion_beyond_all_measure(source):
    """A tokenizer of a terabyte, which as a sparse file costs nothing to send, is refused before it fills the disk."""
    os.truncate(source / "tokenizer.json", 10**12)
    refused(source, f"{source}/tokenizer.json has {10**12} bytes, more than any such file needs: remove it")


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "a\0.safetensors", "a\n.safetensors",
     "\x1b[2J.safetensors", "\u202e.safetensors", "\ud800.safetensors", f"{'x' * 300}.safetensors", "config.json"],
    ids=ascii,
)  # fmt: skip
def test_an_index_that_leads_elsewhere(source, name):
    """An index may name files of its own directory alone, by names that can be printed."""
    content = json.loads((source / INDEX).read_text())
    content["weight_map"]["model.embed_tokens.weight"] = name
    (source / INDEX).write_text(json.dumps(content))
    shown = repr(name) if len(name) < 100 else f"'{'x' * 196}..."
    refused(
        source,
        f"{source / INDEX}: the shard of 'model.embed_tokens.weight' is {shown}, "
        "but should be a file name such as model.safetensors",
    )


@pytest.mark.parametrize("levels", [150, 988, 100_000])
def test_a_config_nested_too_deeply(source, levels):
    """A config that could be read, but not be written again, is refused before anything is written."""
    content = (source / "config.json").read_text()
    (source / "config.json").write_text(f'{content[:-1]}, "more": {"[" * levels}{"]" * levels}}}')
    refused(source, f"{source}/config.json: nested too deeply")


def test_errors_are_short(source):
    """A name of a megabyte does not come back as an error of a megabyte."""
    for change in ({"model_type": "x" * 10**6}, {"per_layer_config": {"x" * 10**6: {}}}):
        content = json.loads((source / "config.json").read_text()) | change
        (source / "config.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"\Aconfig\.json: [^\n]{,600}\Z"):
            read_source(source)
        (source / "config.json").write_text(json.dumps(content | {"model_type": "qwen3"}))


@pytest.mark.parametrize("name", ["out\nsound", "out\0", "\x1b[2Jout"], ids=ascii)
def test_a_destination_that_cannot_be_printed(source, name):
    """A destination whose name has a line break, a NUL or what a terminal obeys is refused."""
    out = source.parent / name
    message = f"{str(out)!r} is not a name for a new directory: name one that can be printed"
    with pytest.raises(DestinationError, match=exactly(message)):
        prune_checkpoint(source, out, PLAN)
    assert os.listdir(source.parent) == ["source"]


def test_names_that_terminals_obey_are_shown_escaped(source, monkeypatch, capsys):
    """A file's name, or a tensor's, that holds line breaks or escapes is printed as what it is, in its line."""
    (source / "LICENSE\n\x1b[2J").write_text("x")
    assert run(monkeypatch, "prune", source, source.parent / "out", "--mlp", "0") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == rf"left behind in {source}: LICENSE\n\x1b[2J"
    odd = source.parent / "a\nb"
    assert run(monkeypatch, "prune", odd, source.parent / "out", "--mlp", "0") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_link_to_the_source_is_no_destination(source):
    """A link to the source, or to anything else, is not replaced, with overwrite neither."""
    before = read_files(source)
    link = source.parent / "link"
    link.symlink_to("source")
    for destination, message in {
        link: f"{link} is the source itself: name another directory",
        link / "out": f"{link}/out lies inside the source {source}: name a directory outside it",
    }.items():
        with pytest.raises(DestinationError, match=exactly(message)):
            prune_checkpoint(source, destination, PLAN, overwrite=True)
    link.unlink()
    link.symlink_to("nowhere")
    with pytest.raises(DestinationError, match=exactly(f"{link} is a link: name the directory itself")):
        prune_checkpoint(source, link, PLAN, overwrite=True)
    assert read_files(source) == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_that_the_umask_leaves(source, umask):
    """What is written has the modes of new files, whatever the source's are: nothing is run, nothing opened to all."""
    for path in source.iterdir():
        path.chmod(0o7777)
    source.chmod(0o777)
    before = os.umask(umask)
    try:
        prune_checkpoint(source, source.parent / "out", PLAN)
    finally:
        os.umask(before)
    out = source.parent / "out"
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o666 & ~umask}
    assert not any(path.stat().st_mode & stat.S_IWOTH for path in (out, *out.iterdir()))


def test_a_directory_under_the_name_of_the_weights(tmp_path):
    """A directory that is called model.safetensors is told as that."""
    root = write_checkpoint(tmp_path / "source")
    put_instead(root / "model.safetensors", "directory")
    refused(root, f"{root}/model.safetensors is not a regular file: put the file itself in its place")


def test_pickled_files_are_never_opened(tmp_path):
    """What lies beside the safetensors as a pickle is not even opened."""
    root = write_checkpoint(tmp_path / "source")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl"):
        (root / name).write_bytes(b"\x80")
    opened, listening = [], [True]
    sys.addaudithook(
        lambda event, arguments: opened.append(str(arguments[0])) if listening and event == "open" else None
    )
    result = prune_checkpoint(root, tmp_path / "out", PLAN)
    listening.clear()  # a hook stays for good
    assert str(root / "config.json") in opened
    assert not [name for name in opened if name.endswith((".bin", ".pt", ".pkl"))]
    assert len(result.left_behind) == 4
    (root / "model.safetensors").write_bytes(raw_shard({}))
    assert read_source(root).left_behind == result.left_behind
