"""Whatever a header says, our reader of safetensors files agrees with the library, or is stricter and says why."""

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning import CheckpointError
from pruning.files.shards import read_shard
from tests.unit.checkpoints import exactly, raw_shard
from tests.unit.differential import assert_as_the_library

CORPUS = Path(__file__).parents[2] / "fixtures" / "fuzz" / "headers"
BITS = {"F4": 4, "F6_E3M2": 6, "U8": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "BF16": 16, "F32": 32, "U64": 64, "C64": 64}
NUMBERS = [0, 1, 2, 3, 4, 7, 8, -1, -0.0, 1.0, 4.5, True, None, "4", [], 2**31, 2**32, 2**40, 2**60, 2**61]
NUMBERS += [2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]
NAMES = st.sampled_from(["a", "b", "", "\0", "a\n", "\x1b[31m", "é", "🙂", "__metadata__", "x" * 300])
ODD_TEXT = [
    b"-0",
    b"0e0",
    b"NaN",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"a":',
    b"{",
    b"}",
    b",",
    b" ",
    b"\0",
    b"9" * 20,
]


@st.composite
def valid_headers(draw):
    """Draw the header of tensors that lie one behind the other, as a dict, and the number of bytes they fill."""
    header, end = {}, 0
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(NAMES, st.text(max_size=3), max_size=2))
    for name in draw(st.lists(NAMES.filter(lambda name: name != "__metadata__"), unique=True, max_size=4)):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.integers(0, 3), max_size=2)) + ([4] if BITS[dtype] % 8 else [])
        size = BITS[dtype] // 2 if BITS[dtype] % 8 else BITS[dtype] // 8
        for each in shape[: -1 if BITS[dtype] % 8 else None]:
            size *= each
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return header, end


@st.composite
def mutated_files(draw):
    """Draw a valid file and change up to three things in its header's values, its text, its length or its data."""
    header, end = draw(valid_headers())
    tensors = sorted(header.keys() - {"__metadata__"})
    for _ in range(draw(st.integers(0, 2))):
        if not tensors:
            break
        entry = header[draw(st.sampled_from(tensors))]
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "other"]))
        value = entry.get(field)
        if field in ("shape", "data_offsets") and isinstance(value, list) and value and draw(st.booleans()):
            value[draw(st.integers(0, len(value) - 1))] = draw(st.sampled_from(NUMBERS))
        elif field == "shape" and isinstance(value, list):
            value.extend(draw(st.lists(st.sampled_from(NUMBERS), max_size=3)))
        elif draw(st.booleans()):
            entry[field] = draw(st.sampled_from([*NUMBERS, "U8", "F4", "u8", {}, [0, 0], [[0]]]))
        else:
            entry.pop(field, None)
    text = json.dumps(header, ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(0, 1))):
        begin = draw(st.integers(0, len(text)))
        text = text[:begin] + draw(st.sampled_from(ODD_TEXT)) + text[begin + draw(st.integers(0, 3)) :]
    length = len(text) + draw(st.sampled_from([0] * 12 + [-1, 1, 2**31, 2**63, 2**64 - 1 - len(text)]))
    data = bytes(range(1, 256)) * (end // 255 + 1)
    size = max(0, end + draw(st.sampled_from([0] * 6 + [-1, 1, 8])))
    return struct.pack("<Q", max(0, length)) + text + data[:size]


@settings(max_examples=settings().max_examples * 5)
@given(content=mutated_files())
def test_mutated_files_are_read_as_the_library_reads_them(tmp_path, content):
    """A file with a few things changed is read as the library reads it, or refused in one short line, and why."""
    assert_as_the_library(tmp_path / "model.safetensors", content)


@given(content=valid_headers())
def test_valid_files_are_read(tmp_path, content):
    """A valid file of any dtype, below a byte too, with empty tensors and odd names, is read by both."""
    header, end = content
    assert assert_as_the_library(tmp_path / "model.safetensors", raw_shard(header, b"\1" * end))


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_corpus_of_the_fuzzing(tmp_path, name):
    """What the fuzzing starts from, and what it once found, is read as the library reads it, or refused."""
    count, rest = (content := (CORPUS / name).read_bytes())[0], content[1:]
    content = rest if count == 255 else raw_shard(rest, bytes(range(count)))
    assert_as_the_library(tmp_path / "model.safetensors", content)


def test_what_is_no_file_is_refused(tmp_path):
    """A FIFO that nobody writes to, and a link to a device without end, are refused; neither is waited for."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        with pytest.raises(CheckpointError, match=exactly(f"{tmp_path}/{name} cannot be read: Not a regular file")):
            read_shard(tmp_path / name)
