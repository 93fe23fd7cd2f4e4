import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning import CheckpointError, PrunePlan, prune_checkpoint
from pruning import untrusted_files as json_files
from pruning.files import small_files
from pruning.files.shards import INDEX_FILE
from pruning.files.source import read_source
from pruning.untrusted_files import JsonText, read_json
from tests.unit.checkpoints import exactly, write_checkpoint
from tests.unit.either_way import AT_ONCE, either_way

LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)
ODD_TEXT = ["", " ", "\n", ",", ":", "{", "}", "[", '"', "1", "-0", "NaN", "\\", "\x00", "\u00a0", "\ufeff", '"a":1,']


def read_nested(text, levels):
    """Return what comes next, objects down to so many levels read key by key."""
    if levels == 0:
        return text.read_value()
    return {key: read_nested(text, levels - 1) for key in text.read_keys()}


def read(data, levels):
    """Return what a document of objects down to so many levels holds, parsed at once or not."""

    def read_to_the_end():
        text = JsonText(data)
        content = read_nested(text, levels)
        text.require_end()
        return content

    return either_way(read_to_the_end)


@given(content=st.dictionaries(st.text(max_size=3), OBJECTS, max_size=4), levels=st.integers(0, 2), data=st.data())
def test_key_by_key_as_json_loads(content, levels, data):
    """Read key by key, to whatever depth and with whatever space, an object is what json.loads makes of it."""
    indent = data.draw(st.sampled_from([None, 0, 2, "\t\r\n "]))
    separators = data.draw(st.sampled_from([None, (",", ":"), (" , ", " :\t")]))
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=data.draw(st.booleans()))
    space = st.text(" \t\r\n", max_size=3)
    assert read((data.draw(space) + text + data.draw(space)).encode(), levels) == content


def distinct(pairs):
    """Return an object's pairs as a dict; raises KeyError if a key comes twice."""
    if len(dict(pairs)) < len(pairs):
        raise KeyError
    return dict(pairs)


def integer(text):
    """Return an integer; -0 is a float, as it is to the safetensors library."""
    return int(text) or (-0.0 if text.startswith("-") else 0)


def require_as_json_loads(text):
    """Have a text read, key by key if it is an object, or refused with the same words and place, as json.loads does."""
    levels = int(text.lstrip(" \t\r\n").startswith("{"))
    try:
        expected = json.loads(text, object_pairs_hook=distinct, parse_int=integer)
    except json.JSONDecodeError as error:
        message = exactly(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
        if error.msg == "Illegal trailing comma before end of object":  # Python 3.13; ours may be as before it
            message += r"|\Anot JSON at line \d+, column \d+: Expecting property name enclosed in double quotes\Z"
        with pytest.raises(ValueError, match=message):
            read(text.encode(), levels)
    except KeyError:
        with pytest.raises(ValueError, match=r"^the key .* appears twice$|^not JSON"):
            read(text.encode(), levels)
    else:
        assert json.dumps(read(text.encode(), levels)) == json.dumps(expected)  # as text, in which NaN equals itself


@given(content=OBJECTS, data=st.data())
def test_damaged_text_is_refused_as_json_loads_refuses_it(content, data):
    """A text with a few characters changed is read as json.loads reads it, or refused with the same words and place."""
    text = json.dumps(content, ensure_ascii=False)
    begin = data.draw(st.integers(0, len(text)))
    require_as_json_loads(
        text[:begin] + data.draw(st.sampled_from(ODD_TEXT)) + text[begin + data.draw(st.integers(0, 3)) :]
    )


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}}", "{,}", '{"a"}', '{"a" 1}', '{"a":}', '{"a":1', '{"a":1,', '{"a":1,}', '{"a":1 "b":2}',
        '{"a":1{"b":2}', '{"a":1,,"b":2}', '{,"a":1}', '{{"a":1}', '{"a":1,"b"', '{"a":1,b:2}', "{'a':1}",
        '{"a\x00b":1}', '{"a\nb":1}', '{"a":1,"\x1f":2}', '{"a\u00a0b\x7f":1}', '{"a\\"b\\u0063":1}', '{"\\ud800":1}',
        '{"a\\":1}',
    ],
)  # fmt: skip
def test_what_comes_around_a_key(text):
    """Odd keys, and separators that are missing or one too many, are read or refused as json.loads has them."""
    require_as_json_loads(text)


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '{"b": {"a": 1, "a": 2}}'])
def test_a_key_that_comes_twice(text, levels):
    """A key that comes twice is refused, at whatever depth."""
    with pytest.raises(ValueError, match=exactly("the key 'a' appears twice")):
        read(text.encode(), levels)


def keys_of(keys):
    """Return the keys of an object as they are read, key by key."""
    data = f"{{{', '.join(f'{json.dumps(key)}: 0' for key in keys)}}}".encode()

    def read_keys():
        text = JsonText(data)
        return [key for key in text.read_keys() if text.read_value() == 0]

    return either_way(read_keys)


@given(keys=st.lists(st.text("ab", max_size=3)))
def test_keys_that_come_once(keys):
    """Keys pass if each comes once, in whatever order."""
    if len(set(keys)) == len(keys):
        assert keys_of(keys) == keys
        return
    with pytest.raises(ValueError, match="appears twice"):
        keys_of(keys)


def test_keys_in_order_need_no_set(monkeypatch):
    """Keys that come in order, value by value, are not put into a set; others are."""
    made = []
    monkeypatch.setattr(json_files, "set", lambda keys: made.append(keys) or frozenset(keys), raising=False)
    keys_of([f"{number:07}" for number in range(1000)])
    assert made == []
    keys_of(["b", "a", "c"])
    assert made == [["b", "a", "c"]]


@pytest.mark.parametrize("characters", [AT_ONCE, AT_ONCE + 1])
def test_what_is_large_is_never_there_as_a_whole(monkeypatch, characters):
    """Only what is small is parsed at once: of a larger text no object is made but those that are asked for."""
    sizes = []
    monkeypatch.setattr(json_files, "_object", lambda pairs: sizes.append(len(pairs)) or dict(pairs))
    entries = ",".join(f'"{number:07}":{{}}' for number in range(20_000))
    text = JsonText(f"{{{entries}}}".ljust(characters).encode())
    assert [text.read_value() for _ in text.read_keys()] == [{}] * 20_000
    text.require_end()
    assert sizes[:20_000] == [0] * 20_000
    assert sizes[20_000:] == ([20_000] if characters == AT_ONCE else [])


def test_more_values_than_any_file_needs(tmp_path, monkeypatch):
    """A file of so many values that they would fill the memory is refused before they are made."""
    monkeypatch.setattr(json_files, "_MOST_VALUES", 1000)
    (tmp_path / "sound.json").write_text(json.dumps([[]] * 1000))
    (tmp_path / "bomb.json").write_text(json.dumps([[]] * 1001))
    assert len(read_json(tmp_path / "sound.json")) == 1000
    with pytest.raises(ValueError, match=exactly("it has more than 1000 values")):
        read_json(tmp_path / "bomb.json")


@pytest.mark.parametrize("name", ["pruning.json", "model.safetensors.index.json"])
def test_what_would_not_be_read_again_is_not_written(tmp_path, monkeypatch, name):
    """A manifest or an index larger than what is read of it is refused, and nothing of it stays."""
    source = write_checkpoint(tmp_path / "source", shards=2)
    prune_checkpoint(source, tmp_path / "sound", PrunePlan(mlp=(0,)))
    size = (tmp_path / "sound" / name).stat().st_size
    monkeypatch.setitem(small_files._MOST_BYTES, name, size)
    prune_checkpoint(source, tmp_path / "sound", PrunePlan(mlp=(0,)), overwrite=True)
    monkeypatch.setitem(small_files._MOST_BYTES, name, size - 1)
    message = (
        f"{name} would have {size} bytes, of which at most {size - 1} are read: "
        "the checkpoint has too many tensors, or their names are too long"
    )
    with pytest.raises(CheckpointError, match=exactly(message)):
        prune_checkpoint(source, tmp_path / "out", PrunePlan(mlp=(0,)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sound", "source"]


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
