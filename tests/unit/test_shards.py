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


def u8(begin, end, **changes):
    """Return the header's entry of a U8 vector, with changes."""
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


ENTRY = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
FIELDS = "tensor 'a' should have a dtype, a shape and data_offsets, and nothing else"

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

# Headers that the library refuses, with four bytes behind each.
BROKEN = {
    "no header": b"",
    "header cut": b'{"a":',
    "a list": [],
    "byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"\xff":' + ENTRY + b"}",
    "half a surrogate pair": b'{"\\ud800":' + ENTRY + b"}",
    "half a pair in the metadata": b'{"__metadata__":{"a":"\\udfff"},"a":' + ENTRY + b"}",
    "deep nesting": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a field twice": b'{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": u8(0, 4)},
    "metadata in a list": {"__metadata__": [], "a": u8(0, 4)},
    "a number": {"a": 5},
    "no offsets": {"a": {"dtype": "U8", "shape": [4]}},
    "unknown dtype": {"a": u8(0, 4, dtype="U4")},
    "dtype in lower case": {"a": u8(0, 4, dtype="u8")},
    "dtype in a list": {"a": u8(0, 4, dtype=["U8"])},
    "negative size": {"a": u8(0, 4, shape=[-4])},
    "size with a fraction": {"a": u8(0, 4, shape=[4.0])},
    "size -0": {"a": u8(0, 0, shape=[-0.0])},
    "size true": {"a": u8(0, 4, shape=[4, True])},
    "size beyond 64 bits": {"a": u8(0, 4, shape=[2**64])},
    "offsets backwards": {"a": u8(0, 4, data_offsets=[4, 0])},
    "offset negative": {"a": u8(0, 4, data_offsets=[-4, 0])},
    "three offsets": {"a": u8(0, 4, data_offsets=[0, 4, 4])},
    "wrong size": {"a": u8(0, 4, shape=[3])},
    "half a byte": {"a": u8(0, 4, dtype="F4", shape=[7])},
    "more elements than there are numbers": {"a": u8(0, 4, shape=[2**40, 2**40])},
    "hole": {"a": u8(0, 2), "b": u8(3, 4)},
    "hole at the start": {"a": u8(1, 4)},
    "hole that is not the last": {"a": u8(0, 1), "b": u8(2, 3), "c": u8(3, 4)},
    "overlap": {"a": u8(0, 3), "b": u8(2, 4)},
    "same bytes": {"a": u8(0, 4), "b": u8(0, 4)},
    "a name that a terminal obeys": {"\x1b[31m\n": u8(1, 4)},
}

# Where the library silently drops a part of the header.
AMBIGUOUS = {
    "a tensor twice": (b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", "the key 'a' appears twice"),
    "metadata twice": (b'{"__metadata__":{"x":"1","x":"2"},"a":' + ENTRY + b"}", "the key 'x' appears twice"),
    "a field too many": ({"a": u8(0, 4, stride=[1])}, FIELDS),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_the_library_refuses_is_refused(tmp_path, kind):
    """A header that the library refuses is refused by us with the library's reason, in one line that can be printed."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw_shard(BROKEN[kind], b"1234"))
    with pytest.raises(SafetensorError):
        deserialize(path.read_bytes())
    with pytest.raises(CheckpointError) as refused:
        read_shard(path)
    assert str(refused.value).startswith(f"{path}: its header is broken: 'Error while deserializing")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(tmp_path, kind):
    """A file that cannot be whole is refused, in one line that names it."""
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
    """Looking for the repeated key of a header of 50,000 takes no time that grows with its square."""
    names = [f'"{number}":{json.dumps(u8(0, 0))}' for number in range(50_000)]
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw_shard(("{" + ",".join([*names, names[-1]]) + "}").encode()))
    with pytest.raises(CheckpointError, match=r"the key '49999' appears twice"):
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
