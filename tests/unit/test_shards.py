import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch

from pruning import CheckpointError
from pruning.files.shards import read_shard, shard_header, shard_names
from tests.unit.checkpoints import exactly, raw_shard

# Any name that JSON in UTF-8 can hold, but for the one the format keeps for itself.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3)
METADATA = st.none() | st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.text(max_size=8)
)
TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
# At least one, since safetensors 0.8.0 writes a header that nobody can read for metadata without a tensor.
TORCH_TENSORS = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(TORCH_DTYPES)), SHAPES), min_size=1, max_size=6)
NUMPY_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
    "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def as_metadata(metadata):
    """Return metadata without the characters that the library's Python binding refuses to take."""
    return metadata and {key: value.encode("utf-8", "replace").decode() for key, value in metadata.items()}


def described(tensors):
    """Return what both readers must agree on, by name."""
    return {name: (dtype, list(shape), bytes(data)) for name, dtype, shape, data in tensors}


def read_by_us(path):
    """Read a file through `read_shard`: its tensors, as `described`."""
    content = path.read_bytes()
    return described((t.name, t.dtype, t.shape, content[t.begin : t.end]) for t in read_shard(path).tensors)


def read_by_library(path):
    """Read a file through the safetensors library: its tensors, as `described`."""
    return described((name, t["dtype"], t["shape"], t["data"]) for name, t in deserialize(path.read_bytes()))


def test_metadata_in_the_form_of_a_tensor(tmp_path):
    """Metadata whose keys are those of a tensor's entry are metadata all the same."""
    path, metadata = tmp_path / "a.safetensors", {"shape": "a", "data_offsets": "b", "dtype": "c"}
    save_torch({"a": torch.ones(2)}, path, metadata)
    assert read_shard(path).metadata == metadata


@given(tensors=TORCH_TENSORS, metadata=METADATA)
def test_files_of_torch_read_as_the_library_reads_them(tmp_path, tensors, metadata):
    """Names, dtypes, shapes, bytes and metadata of what torch tensors are saved to are what the library says."""
    path, metadata = tmp_path / "torch.safetensors", as_metadata(metadata)
    save_torch(
        {name: torch.ones(shape).to(TORCH_DTYPES[dtype]) for name, (dtype, shape) in tensors.items()}, path, metadata
    )
    assert read_by_us(path) == read_by_library(path)
    assert {name: (dtype, shape) for name, (dtype, shape, _) in read_by_us(path).items()} == tensors
    with safe_open(path, "pt") as file:
        assert (read_shard(path).metadata or None) == (file.metadata() or None)


@given(tensors=st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(NUMPY_DTYPES)), SHAPES)))
def test_files_of_numpy_read_as_the_library_reads_them(tmp_path, tensors):
    """The same for numpy arrays, whose elements count up."""
    path = tmp_path / "numpy.safetensors"
    save_numpy(
        {
            name: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(NUMPY_DTYPES[dtype])
            for name, (dtype, shape) in tensors.items()
        },
        path,
    )
    assert read_by_us(path) == read_by_library(path)


@given(
    tensors=TORCH_TENSORS,
    metadata=METADATA,
    data=st.data(),
)
def test_headers_we_write_are_read_by_the_library(tmp_path, tensors, metadata, data):
    """A header for some tensors of a file, before their bytes, makes a file that both read alike, bytes aligned."""
    path, metadata = tmp_path / "some.safetensors", as_metadata(metadata)
    save_torch(
        {name: torch.ones(shape).to(TORCH_DTYPES[dtype]) for name, (dtype, shape) in tensors.items()}, path, metadata
    )
    shard, content = read_shard(path), path.read_bytes()
    kept = [tensor for tensor in shard.tensors if data.draw(st.booleans())]
    header = shard_header(kept, shard.metadata)
    assert len(header) % 8 == 0
    expected = {tensor.name: read_by_library(path)[tensor.name] for tensor in kept}
    path.write_bytes(header + b"".join(content[tensor.begin : tensor.end] for tensor in kept))
    assert read_by_us(path) == read_by_library(path) == expected
    assert read_shard(path).metadata == shard.metadata


def test_every_dtype_of_the_library_is_known(tmp_path):
    """Each dtype that the library names in its own refusal of an unknown one has its size here."""
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(raw_shard({"a": {"dtype": "?", "shape": [], "data_offsets": [0, 0]}}))
    with pytest.raises(SafetensorError) as refused:
        deserialize(path.read_bytes())
    names = str(refused.value).split("expected one of ")[1].split("`")[1::2]
    assert "BF16" in names
    for name in names:
        # 8 elements fill whole bytes in every dtype; which number of bytes, the library says by accepting one.
        sizes = []
        for size in (4, 6, 8, 16, 32, 64):
            path.write_bytes(raw_shard({"a": {"dtype": name, "shape": [8], "data_offsets": [0, size]}}, bytes(size)))
            try:
                read_shard(path)
            except CheckpointError:
                continue
            sizes.append(size)
        assert len(sizes) == 1, name
        path.write_bytes(
            raw_shard({"a": {"dtype": name, "shape": [8], "data_offsets": [0, sizes[0]]}}, bytes(sizes[0]))
        )
        assert [tensor for tensor, _ in deserialize(path.read_bytes())] == ["a"]


def u8(begin, end, **changes):
    """Return the header's entry of a U8 vector, with changes."""
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


ENTRY = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
FIELDS = "tensor 'a' should have a dtype, a shape and data_offsets, and nothing else"
OFFSETS = "tensor 'a' has data_offsets that are not a begin and an end"
SHAPE = "tensor 'a' has a shape that is not a list of sizes"
METADATA_KIND = "__metadata__ should map strings to strings"

# File -> what the error says behind its path.
HOSTILE = {
    "empty": (b"", " is truncated: it has 0 bytes, its header alone should have more"),
    "seven bytes": (b"1234567", " is truncated: it has 7 bytes, its header alone should have more"),
    "length beyond the file": (
        (10**6).to_bytes(8, "little") + b"{}",
        " is truncated: it has 10 bytes, its header alone should have more",
    ),
    "absurd length": (b"\xff" * 8 + b"{}", " is truncated: it has 10 bytes, its header alone should have more"),
    "bytes missing": (raw_shard({"a": u8(0, 4)}, b"123"), " is truncated: it has 71 bytes, but should have 72"),
    "bytes behind": (raw_shard({"a": u8(0, 4)}, b"12345"), " has 1 bytes behind its last tensor, but should have none"),
    "bytes behind nothing": (raw_shard({}, b"1"), " has 1 bytes behind its last tensor, but should have none"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 5\n",
        " is a Git LFS pointer, not the file itself: run 'git lfs pull'",
    ),
}

# Header, with four bytes behind it unless they are given -> what the error says is broken.
BROKEN = {
    "no header": (b"", "not JSON at line 1, column 1: Expecting value"),
    "header cut": (b'{"a":', "not JSON at line 1, column 6: Expecting value"),
    "a list": ([], "not a JSON object"),
    "byte order mark": (
        b"\xef\xbb\xbf{}",
        "not JSON at line 1, column 1: Unexpected UTF-8 BOM (decode using utf-8-sig)",
    ),
    "not UTF-8": (b'{"\xff":' + ENTRY + b"}", "not UTF-8 at byte 2"),
    "half a surrogate pair": (b'{"\\ud800":' + ENTRY + b"}", r"the name '\ud800' is not Unicode text"),
    "half a pair in the metadata": (b'{"__metadata__":{"a":"\\udfff"},"a":' + ENTRY + b"}", METADATA_KIND),
    "deep nesting": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "a field twice": (
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        "the key 'dtype' appears twice",
    ),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": u8(0, 4)}, METADATA_KIND),
    "metadata in a list": ({"__metadata__": [], "a": u8(0, 4)}, METADATA_KIND),
    "a number": ({"a": 5}, FIELDS),
    "no offsets": ({"a": {"dtype": "U8", "shape": [4]}}, FIELDS),
    "unknown dtype": ({"a": u8(0, 4, dtype="U4")}, "tensor 'a' has the unknown dtype 'U4'"),
    "dtype in lower case": ({"a": u8(0, 4, dtype="u8")}, "tensor 'a' has the unknown dtype 'u8'"),
    "dtype in a list": ({"a": u8(0, 4, dtype=["U8"])}, "tensor 'a' has the unknown dtype ['U8']"),
    "negative size": ({"a": u8(0, 4, shape=[-4])}, SHAPE),
    "size with a fraction": ({"a": u8(0, 4, shape=[4.0])}, SHAPE),
    "size true": ({"a": u8(0, 4, shape=[4, True])}, SHAPE),
    "size beyond 63 bits": ({"a": u8(0, 4, shape=[2**63])}, SHAPE),
    "offsets backwards": ({"a": u8(0, 4, data_offsets=[4, 0])}, OFFSETS),
    "offset negative": ({"a": u8(0, 4, data_offsets=[-4, 0])}, OFFSETS),
    "three offsets": ({"a": u8(0, 4, data_offsets=[0, 4, 4])}, OFFSETS),
    "wrong size": ({"a": u8(0, 4, shape=[3])}, "tensor 'a' has 4 bytes, which U8 [3] does not fill"),
    "half a byte": ({"a": u8(0, 4, dtype="F4", shape=[7])}, "tensor 'a' has 4 bytes, which F4 [7] does not fill"),
    "more elements than there are numbers": (
        {"a": u8(0, 4, shape=[2**40, 2**40])},
        "tensor 'a' has 4 bytes, which U8 [1099511627776, 1099511627776] does not fill",
    ),
    "hole": ({"a": u8(0, 2), "b": u8(3, 4)}, "tensor 'b' leaves a hole before it"),
    "hole at the start": ({"a": u8(1, 4)}, "tensor 'a' leaves a hole before it"),
    "hole that is not the last": ({"a": u8(0, 1), "b": u8(2, 3), "c": u8(3, 4)}, "tensor 'b' leaves a hole before it"),
    "overlap": ({"a": u8(0, 3), "b": u8(2, 4)}, "tensor 'b' overlaps the tensor before it"),
    "same bytes": ({"a": u8(0, 4), "b": u8(0, 4)}, "tensor 'b' overlaps the tensor before it"),
}
HOSTILE |= {
    kind: (raw_shard(header, b"1234"), f": its header is broken: {why}") for kind, (header, why) in BROKEN.items()
}

# Where the library silently drops a part of the header.
AMBIGUOUS = {
    "a tensor twice": (b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", "the key 'a' appears twice"),
    "metadata twice": (b'{"__metadata__":{"x":"1","x":"2"},"a":' + ENTRY + b"}", "the key 'x' appears twice"),
    "a field too many": ({"a": u8(0, 4, stride=[1])}, FIELDS),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(tmp_path, kind):
    """A file that the library refuses is refused by us, in one line that names it."""
    content, message = HOSTILE[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=exactly(f"{path}{message}")):
        read_shard(path)
    with pytest.raises(SafetensorError):
        deserialize(content)


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_ambiguous_files_are_refused(tmp_path, kind):
    """A header of which the library silently drops a part is refused too: pruning would lose it for good."""
    header, reason = AMBIGUOUS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw_shard(header, b"1234"))
    deserialize(path.read_bytes())
    with pytest.raises(CheckpointError, match=exactly(f"{path}: its header is broken: {reason}")):
        read_shard(path)


def test_a_header_beyond_the_limit_of_the_format_is_refused(tmp_path):
    """A header longer than the library reads is refused before it is read; the file is sparse."""
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    with pytest.raises(
        CheckpointError, match=exactly(f"{path}: its header of 100000001 bytes exceeds the limit of 100000000")
    ):
        read_shard(path)
    with pytest.raises(SafetensorError, match="header too large"), safe_open(path, "np"):
        pass


def test_files_that_cannot_be_read_are_refused(tmp_path):
    """A missing file and a directory are refused in one line."""
    with pytest.raises(CheckpointError, match=exactly(f"{tmp_path}/none cannot be read: No such file or directory")):
        read_shard(tmp_path / "none")
    with pytest.raises(CheckpointError, match=exactly(f"{tmp_path} cannot be read: Is a directory")):
        read_shard(tmp_path)


def test_a_repeated_key_is_found_in_linear_time(tmp_path):
    """Looking for the repeated key of a header of 200,000 takes no time that grows with its square."""
    names = [f'"{number}":{json.dumps(u8(0, 0))}' for number in range(200_000)]
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw_shard(("{" + ",".join([*names, names[-1]]) + "}").encode()))
    with pytest.raises(CheckpointError, match=r"the key '199999' appears twice"):
        read_shard(path)


def assert_read_or_refused(path):
    """Check that a file is read as the library reads it, or refused in one line."""
    refusal = ""
    try:
        tensors = read_by_us(path)
    except CheckpointError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert refusal or tensors == read_by_library(path)


@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(raw_shard))
def test_random_bytes_are_read_or_refused(tmp_path, content):
    """Whatever a file holds, it is read, and then by the library as well, or refused in one line."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_read_or_refused(path)


@given(cut=st.integers(0, 200), data=st.data())
def test_a_damaged_byte_or_a_cut_is_never_read_as_another_file(tmp_path, cut, data):
    """A valid file that was cut short, or of whose header one byte differs, is refused or read as the library does."""
    content = raw_shard({"__metadata__": {"format": "pt"}, "a": u8(0, 4), "b": u8(4, 9)}, b"123456789")
    path = tmp_path / "model.safetensors"
    if cut < len(content):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError):
            read_shard(path)
    else:
        position = data.draw(st.integers(0, len(content) - 10))
        damaged = bytearray(content)
        damaged[position] = data.draw(st.integers(0, 255))
        path.write_bytes(damaged)
        assert_read_or_refused(path)


def test_shard_names():
    """Shards are named as transformers names them, and a single one without a number."""
    assert shard_names(1) == ["model.safetensors"]
    assert shard_names(2) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_header_text_is_compact_utf_8():
    """The header is written as JSON without spaces, padded with them to a multiple of 8."""
    header = shard_header([], {"naïve": "yes"})
    assert header[8:].decode().rstrip(" ") == '{"__metadata__":{"naïve":"yes"}}'
    assert int.from_bytes(header[:8], "little") == len(header) - 8
    assert json.loads(header[8:]) == {"__metadata__": {"naïve": "yes"}}


def test_tensors_come_in_the_order_of_their_bytes(tmp_path):
    """Whatever the order of a header, its tensors come as their bytes lie, an empty one before what begins with it."""
    offsets = {"last": (3, 5), "full": (1, 3), "empty": (1, 1), "first": (0, 1)}
    header = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in offsets.items()
    }
    (tmp_path / "x.safetensors").write_bytes(raw_shard(header, b"12345"))
    read = read_shard(tmp_path / "x.safetensors")
    assert [tensor.name for tensor in read.tensors] == ["first", "empty", "full", "last"]
