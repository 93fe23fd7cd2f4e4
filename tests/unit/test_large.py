"""Checkpoints of any size: holes stay holes, and memory does not grow with the bytes."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import CheckpointError, PrunePlan, audit_checkpoint, prune_checkpoint
from tests.unit.checkpoints import read_tensors, run_python, tiny_config, write_checkpoint
from tests.unit.sparse import GIANT, stored_bytes, write_shards, write_sparse

PAGE = 4096
PLAN = PrunePlan(mlp=(0,))


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where files have no holes."""
    path = tmp_path_factory.mktemp("holes") / "file"
    with path.open("wb") as file:
        file.truncate(2**20)
    if path.stat().st_blocks:
        pytest.skip("the file system below the temporary directory has no holes")


def write_islands(root: Path, tensors: dict[str, int], islands: list[tuple[int, bytes]]) -> Path:
    """Write a checkpoint of name -> bytes whose values are zeros but for some, at offsets from the file's start."""
    write_shards(root, [{name: [size // 2] for name, size in tensors.items()}], tiny_config())
    path = root / "model-00001-of-00001.safetensors"
    size = path.stat().st_size
    header = path.read_bytes()[: size - sum(tensors.values())]
    with path.open("r+b") as file:
        for offset, content in islands:
            if offset >= len(header):
                file.seek(offset)
                file.write(content[: size - offset])
    return root


@pytest.mark.usefixtures("holes")
@settings(max_examples=settings().max_examples // 4 + 1)
@given(data=st.data())
def test_a_sparse_file_is_copied_byte_for_byte(tmp_path, data):
    """Whatever lies between holes, and wherever tensors end, the copy has the same bytes, and checksums of them."""
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    tensors = {name: data.draw(st.integers(0, 20 * PAGE)) * 2 for name in data.draw(st.permutations(names))}
    offset = st.integers(0, 120 * PAGE)
    islands = data.draw(st.lists(st.tuples(offset, st.binary(min_size=1, max_size=9)), max_size=5))
    checksum = data.draw(st.booleans())
    root = tmp_path / hashlib.sha256(repr((tensors, islands, checksum)).encode()).hexdigest()
    if root.exists():  # hypothesis repeats an example
        return
    source = write_islands(root / "source", tensors, islands)
    prune_checkpoint(source, root / "out", PLAN, checksum=checksum, sync=False)
    kept = {name: tensor for name, tensor in read_tensors(source).items() if "mlp" not in name}
    assert read_tensors(root / "out") == kept
    audit_checkpoint(root / "out", checksum=checksum)


@pytest.mark.usefixtures("holes")
@pytest.mark.parametrize("checksum", [True, False])
def test_holes_stay_holes(tmp_path, checksum):
    """64 MB of holes with a page in their middle, and one at the end, take a few blocks of the copy's disk."""
    size = 2**26
    source = write_islands(
        tmp_path / "source",
        {"model.embed_tokens.weight": size, "model.layers.0.mlp.up_proj.weight": 2, "model.norm.weight": 2**20},
        [(size // 2, b"x" * PAGE)],
    )
    told = []
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum, progress=lambda *counts: told.append(counts))
    weights = tmp_path / "out" / "model.safetensors"
    assert weights.stat().st_size > size + 2**20
    assert weights.stat().st_blocks * 512 <= 16 * PAGE
    assert sum(count for count, _ in told) == told[0][1] == size + 2**20


@pytest.mark.parametrize("kind", [errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("checksum", [True, False])
def test_where_holes_are_not_told(tmp_path, monkeypatch, kind, checksum):
    """On a file system that does not tell where holes are, all is copied."""
    source = write_islands(
        tmp_path / "source",
        {"model.embed_tokens.weight": 50 * PAGE, "model.layers.0.mlp.up_proj.weight": 2, "model.norm.weight": 2},
        [(20 * PAGE, b"x")],
    )
    lseek = os.lseek

    def silent(file, offset, how):
        if how in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(kind, os.strerror(kind))
        return lseek(file, offset, how)

    monkeypatch.setattr(os, "lseek", silent)
    prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum)
    kept = {name: tensor for name, tensor in read_tensors(source).items() if "mlp" not in name}
    assert read_tensors(tmp_path / "out") == kept


def test_a_dense_file_is_not_searched_for_holes(tmp_path, monkeypatch):
    """A file with a block for each of its bytes costs not one call more."""
    source = write_checkpoint(tmp_path / "source")
    looked = []
    monkeypatch.setattr(os, "lseek", lambda *arguments: looked.append(arguments))
    for checksum in (True, False):
        prune_checkpoint(source, tmp_path / "out", PLAN, checksum=checksum, overwrite=True)
    assert looked == []


def test_an_audit_without_checksums(tmp_path):
    """An audit of the headers alone sees another dtype, and not another byte."""
    source = write_checkpoint(tmp_path / "source")
    prune_checkpoint(source, tmp_path / "out", PLAN)
    weights = tmp_path / "out" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    audit_checkpoint(tmp_path / "out", checksum=False)
    with pytest.raises(CheckpointError, match=r"the bytes of 'model\.norm\.weight' have sha256"):
        audit_checkpoint(tmp_path / "out")
    weights.write_bytes(content.replace(b'"BF16"', b'"F16" ', 1))
    with pytest.raises(CheckpointError, match=r"is F16 \[2, 3\], but pruning.json says BF16 \[2, 3\]"):
        audit_checkpoint(tmp_path / "out", checksum=False)


# Peak resident memory from the kernel's own mark, which unlike ru_maxrss begins anew with the program.
GIANTS = """
import json, sys
from pruning import PrunePlan, audit_checkpoint, prune_checkpoint
source, destination = sys.argv[1:]
plan = PrunePlan(self_attn=range(0, 95, 2), mlp=range(1, 95, 3))
removed = plan.removed_bytes(source)
result = prune_checkpoint(source, destination, plan, checksum=False)
audit_checkpoint(destination, checksum=False)
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(json.dumps([removed, result.bytes_before, result.bytes_after, int(peak) * 1024]))
"""


@pytest.mark.usefixtures("holes")
def test_235_billion_parameters(tmp_path):
    """A plan, pruning and an audit of 470 GB, of which the disk holds headers, take 64 MB, and as little of the disk.

    Without checksums: hashing so many zeros would take half an hour, and shows nothing that a gigabyte does not.
    """
    test_holes_stay_holes(tmp_path / "small", checksum=False)  # or this would fill the disk
    source = write_sparse(tmp_path / "source", GIANT)
    process = run_python(GIANTS, source, tmp_path / "out", check=False)
    assert process.returncode == 0, process.stderr
    removed, before, after, peak = json.loads(process.stdout)
    assert before > 470 * 10**9
    assert before - after == removed > 100 * 10**9
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")) > after
    assert stored_bytes(tmp_path / "out") < 5 * 10**6
    assert peak < 64 * 10**6
