import json
import shutil
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning import CheckpointError, PrunePlan, audit_checkpoint, prune_checkpoint
from pruning.files.manifest import Entry, Manifest, manifest_lines, source_identity
from tests.unit.checkpoints import exactly, read_files, write_checkpoint

MODEL = "model.safetensors"
NORM = "model.norm.weight"
PRUNED = "model.layers.0.mlp.up_proj.weight"
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.text(max_size=8),
        st.from_regex("[A-Z0-9_]{1,8}", fullmatch=True),
        st.lists(st.integers(0, 2**62), max_size=3).map(tuple),
        sha256=st.none() | st.from_regex("[0-9a-f]{64}", fullmatch=True),
        bytes=st.none() | st.integers(0, 2**62),
    ),
    unique_by=attrgetter("name"),
)


@pytest.fixture
def pruned(tmp_path):
    """Return a pruned checkpoint."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "pruned", PrunePlan(mlp=(0,)))
    shutil.rmtree(source)
    return tmp_path / "pruned"


def edit(pruned, change):
    """Let `change` edit the manifest's content."""
    path = pruned / "pruning.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(pruned, message):
    """Check that the audit refuses a checkpoint with exactly this message, and changes nothing."""
    before = read_files(pruned)
    with pytest.raises(CheckpointError, match=exactly(message)):
        audit_checkpoint(pruned)
    assert read_files(pruned) == before


@given(
    code=st.dictionaries(st.text(max_size=8), st.from_regex("[0-9a-f]{64}", fullmatch=True)),
    kept=ENTRIES,
    pruned=ENTRIES,
)
def test_manifests_round_trip(tmp_path, code, kept, pruned):
    """A manifest's lines, read again, are the manifest, whatever the names hold."""
    parts = {"source": {"name": "x"}, "plan": PrunePlan(mlp=(1,)), "code": code}
    lines = manifest_lines(**parts, kept=kept, pruned=pruned)
    (tmp_path / "pruning.json").write_text("".join(lines))
    by_name = ({entry.name: entry for entry in entries} for entries in (kept, pruned))
    assert Manifest.read(tmp_path) == Manifest(**parts, **dict(zip(("kept", "pruned"), by_name, strict=True)))


def test_one_line_a_tensor(pruned):
    """The manifest can be read by a person and by line-based tools: every tensor has a line of its own."""
    lines = (pruned / "pruning.json").read_text().splitlines()
    assert sum(NORM in line for line in lines) == 1
    assert sum(PRUNED in line for line in lines) == 1
    assert all(len(line) < 1000 for line in lines)


def test_no_manifest(tmp_path):
    """A directory without a manifest has none."""
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("format"), "not a manifest of format 1"),
        (lambda content: content.update(format=2), "not a manifest of format 1"),
        (lambda content: content.pop("kept"), "it has no 'kept'"),
        (lambda content: content.update(pruned=[]), "it has no 'pruned'"),
        (lambda content: content.update(source="x"), "it has no 'source'"),
        (lambda content: content.update(code=None), "it has no 'code'"),
        (lambda content: content["kept"].update(a=1), "'kept' should map tensors to their dtype and shape"),
        (lambda content: content["pruned"].update(a=[]), "'pruned' should map tensors to their dtype and shape"),
        *(
            (
                lambda content, shape=shape: content["kept"][NORM].update(shape=shape),
                "'kept' should map tensors to their dtype and shape",
            )
            for shape in ([[2]], [True], [2.0], [-1], "2", None)
        ),
        (
            lambda content: content["pruned"][PRUNED].update(bytes={}),
            "'pruned' should map tensors to their dtype and shape",
        ),
        (lambda content: content["kept"][NORM].update(sha256="x"), "one of its checksums is none"),
        (lambda content: content["code"].update(x=[]), "one of its checksums is none"),
        (lambda content: content["source"].update(x=json.loads("[" * 200 + "]" * 200)), "nested too deeply"),
        (lambda content: content.pop("plan"), 'the plan is None, but should be {"self_attn": [...], "mlp": [...]}'),
        (
            lambda content: content["plan"].update(mlp=[-1]),
            "mlp index -1 is negative: layers are numbered from 0",
        ),
    ],
)
def test_a_broken_manifest(pruned, change, reason):
    """A manifest that lacks a part, or holds another kind of thing, is refused in one line."""
    edit(pruned, change)
    refused(pruned, f"{pruned}/pruning.json: {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "not JSON at line 1, column 1: Expecting value"), ("[]", "not a manifest of format 1")],
)
def test_a_manifest_that_is_no_object(pruned, content, reason):
    """A manifest that was cut off, or is no JSON object, is refused by its path."""
    (pruned / "pruning.json").write_text(content)
    refused(pruned, f"{pruned}/pruning.json: {reason}")


def test_a_sound_checkpoint_passes(pruned):
    """An untouched pruned checkpoint passes, and every stored byte was read."""
    read = []
    audit_checkpoint(str(pruned), progress=lambda count, total: read.append(count))
    weights = sum(len(content) for name, content in read_files(pruned).items() if name.endswith(".safetensors"))
    headers = sum(
        8 + int.from_bytes(content[:8], "little")
        for name, content in read_files(pruned).items()
        if name.endswith(".safetensors")
    )
    assert sum(read) == weights - headers


@pytest.mark.parametrize("position", [-1, -7, -20])
def test_a_changed_byte(pruned, position):
    """One changed byte of a tensor is found, and the tensor named."""
    shard = pruned / "model-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[position] ^= 0x80
    shard.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"^{shard}: the bytes of 'model\..*' have sha256 [0-9a-f]+, but pruning"
    ):
        audit_checkpoint(pruned)


def test_a_changed_checksum(pruned):
    """A checksum that is not the bytes' is found, with both."""
    edit(pruned, lambda content: content["kept"][NORM].update(sha256="0" * 64))
    with pytest.raises(
        CheckpointError, match=r"the bytes of 'model.norm.weight' have sha256 [0-9a-f]{64}, but .* says 0{64}$"
    ):
        audit_checkpoint(pruned)


def test_no_manifest_and_no_checksums(pruned):
    """Without a manifest, or without checksums in it, an audit cannot pass."""
    edit(pruned, lambda content: content["kept"][NORM].pop("sha256"))
    refused(pruned, f"{pruned}: pruning.json has no checksum of {NORM!r}")
    (pruned / "pruning.json").unlink()
    refused(pruned, f"{pruned} has no pruning.json: check it against its base instead")


def test_a_manifest_in_another_order(pruned):
    """A manifest may list the tensors in any order: what is sound passes, and a checksum that is wrong is found."""
    edit(pruned, lambda content: content.update(kept=dict(reversed(content["kept"].items()))))
    audit_checkpoint(pruned)
    edit(pruned, lambda content: content["kept"][NORM].update(sha256="0" * 64))
    with pytest.raises(CheckpointError, match=r"the bytes of 'model.norm.weight' have sha256 [0-9a-f]{64}, but "):
        audit_checkpoint(pruned)


def test_another_plan(pruned):
    """A manifest whose plan is not the config's is refused, with both."""
    edit(pruned, lambda content: content["plan"].update(self_attn=[2]))
    refused(pruned, f"{pruned}/pruning.json says self_attn 2, mlp 0, but config.json says mlp 0")


def test_other_tensors(pruned):
    """A tensor that is stored but not in the manifest, or the reverse, or of another dtype or shape, is refused."""
    edit(pruned, lambda content: content["kept"].update(extra=content["kept"][NORM]))
    refused(pruned, f"{pruned}/pruning.json says that 'extra' is kept, but it is not stored")
    edit(pruned, lambda content: [content["kept"].pop(name) for name in ("extra", NORM)])
    refused(pruned, f"{pruned}: {NORM!r} is stored, but pruning.json does not name it")
    edit(pruned, lambda content: content["kept"].update({NORM: {"dtype": "F16", "shape": [2, 3]}}))
    refused(pruned, f"{pruned}: {NORM!r} is BF16 [2, 3], but pruning.json says F16 [2, 3]")
    edit(pruned, lambda content: content["kept"].update({NORM: {"dtype": "BF16", "shape": [3, 2]}}))
    refused(pruned, f"{pruned}: {NORM!r} is BF16 [2, 3], but pruning.json says BF16 [3, 2]")


def test_a_tensor_said_to_be_pruned_that_the_plan_keeps(pruned):
    """A manifest that lists as pruned what its plan does not prune is refused: a tensor was lost."""
    entry = {"dtype": "BF16", "shape": [2, 3], "bytes": 12}
    edit(pruned, lambda content: content["pruned"].update({"model.layers.1.mlp.up_proj.weight": entry}))
    refused(
        pruned,
        f"{pruned}/pruning.json says that 'model.layers.1.mlp.up_proj.weight' is pruned, which its plan does not say",
    )


def test_changed_code(pruned):
    """A Python file that is not the one of the manifest, or is missing, is refused."""
    path = pruned / "modeling_pruned_qwen3.py"
    expected = json.loads((pruned / "pruning.json").read_text())["code"][path.name]
    path.unlink()
    refused(pruned, f"{path} has sha256 missing, but pruning.json says {expected}")
    path.write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    refused(pruned, f"{path} has sha256 {empty}, but pruning.json says {expected}")


def test_a_manifest_beside_an_unpruned_checkpoint_is_not_read(tmp_path):
    """Only a pruned checkpoint has a manifest: a stray `pruning.json` in another is nothing to go by."""
    source = write_checkpoint(tmp_path / "source")
    (source / "pruning.json").write_text("stray")
    prune_checkpoint(source, tmp_path / "out", PrunePlan(mlp=(0,)))
    audit_checkpoint(tmp_path / "out")


def test_the_name_of_a_source(tmp_path, monkeypatch):
    """A source is named by its directory, however it was spelled, or by hub id and commit if the hub's cache has it."""
    (tmp_path / "model" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "model")
    for spelled in (tmp_path / "model", tmp_path / "model" / "inner" / "..", tmp_path / "model" / "."):
        assert source_identity(spelled) == {"name": "model"}
    assert source_identity(type(tmp_path)(".")) == {"name": "model"}
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--gpt2" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert source_identity(snapshot) == {"name": "gpt2", "revision": commit}
    (tmp_path / "link").symlink_to(snapshot)
    assert source_identity(tmp_path / "link") == {"name": "gpt2", "revision": commit}


def test_an_audit_without_checksums(pruned):
    """An audit of the headers alone sees another dtype, and not another byte."""
    weights = max(pruned.glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    audit_checkpoint(pruned, checksum=False)
    with pytest.raises(CheckpointError, match=r"the bytes of 'model\.norm\.weight' have sha256"):
        audit_checkpoint(pruned)
    weights.write_bytes(content.replace(b'"BF16"', b'"F16" ', 1))
    with pytest.raises(CheckpointError, match=r"is F16 \[2, 3\], but pruning.json says BF16 \[2, 3\]"):
        audit_checkpoint(pruned, checksum=False)
