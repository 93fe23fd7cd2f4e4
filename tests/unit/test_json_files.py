import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning import CheckpointError
from pruning.files.shards import INDEX_FILE
from pruning.files.source import read_source
from pruning.untrusted_files import parse_json, read_json
from tests.unit.checkpoints import exactly, write_checkpoint

LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(content=VALUES, ascii_only=st.booleans())
def test_as_json_loads(content, ascii_only):
    """JSON is what json.loads makes of it."""
    assert parse_json(json.dumps(content, ensure_ascii=ascii_only).encode()) == content


def test_minus_zero():
    """-0 is a float, as it is to the safetensors library, and 0 is an int."""
    assert [json.dumps(value) for value in parse_json(b"[-0, 0, -10]")] == ["-0.0", "0", "-10"]


# Text -> what is said of it.
BROKEN = {
    "nothing": (b"", "not JSON at line 1, column 1: Expecting value"),
    "cut": (b'{"a":\n', "not JSON at line 2, column 1: Expecting value"),
    "something behind": (b"{}\n }", "not JSON at line 2, column 2: Extra data"),
    "byte order mark": (
        b"\xef\xbb\xbf1",
        "not JSON at line 1, column 1: Unexpected UTF-8 BOM (decode using utf-8-sig)",
    ),
    "not UTF-8": (b'{"\xff":1}', "not UTF-8 at byte 2"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' appears twice"),
    "a key twice within": (b'{"b": [{"a": 1, "a": 2}]}', "the key 'a' appears twice"),
    "deep": (b"[" * 101 + b"]" * 101, "nested too deeply"),
    "deeper than Python reads": (b"[" * 1_000_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_refused(kind):
    """Malformed text, a key that comes twice at whatever depth, and deep nesting are refused in one line."""
    data, message = BROKEN[kind]
    with pytest.raises(ValueError, match=exactly(message)):
        parse_json(data)


def test_nesting_that_is_read():
    """What nests 100 levels is read."""
    assert json.dumps(parse_json(b"[" * 100 + b"]" * 100)) == "[" * 100 + "]" * 100


def test_a_number_of_many_digits():
    """A number of thousands of digits is refused in one line."""
    with pytest.raises(ValueError, match=exactly("a number of 5000 digits")):
        parse_json(b"9" * 5000)


def test_a_file_that_is_too_large(tmp_path):
    """A file beyond the format's limit for headers is refused before it is parsed; it is sparse."""
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(10**8 + 1)
    with pytest.raises(ValueError, match=exactly("larger than 100000000 bytes")):
        read_json(tmp_path / "large.json")


@given(data=st.data())
def test_an_index_in_any_order(tmp_path, data):
    """Whatever order an index lists the tensors in, the checkpoint is read alike; one in another shard is refused."""
    source = tmp_path / "source"
    if not source.exists():
        write_checkpoint(source, shards=3)
        (tmp_path / "index.json").write_bytes((source / INDEX_FILE).read_bytes())
    weight_map = json.loads((tmp_path / "index.json").read_text())["weight_map"]
    shuffled = {key: weight_map[key] for key in data.draw(st.permutations(list(weight_map)))}
    (source / INDEX_FILE).write_text(json.dumps({"weight_map": shuffled}))
    assert {tensor.name for tensor in read_source(source).tensors()} == weight_map.keys()
    key = data.draw(st.sampled_from(list(weight_map)))
    shuffled[key] = data.draw(st.sampled_from(sorted({*weight_map.values()} - {shuffled[key]})))
    (source / INDEX_FILE).write_text(json.dumps({"weight_map": shuffled}))
    with pytest.raises(CheckpointError, match="which does not hold it"):
        read_source(source)
