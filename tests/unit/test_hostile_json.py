"""Configs, indexes, manifests and plans of whatever content are read, or refused in one line; `tox -e fuzz` goes on."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.hostile_json import KINDS, Stage

CORPUS = Path(__file__).parents[2] / "fixtures" / "fuzz" / "json"
ODD = [None, True, -1, 0, 2**64, 1e308, float("nan"), "", "\ud800", "\x1b[2J", "qwen3", "../x", [], {}, [[]], {"0": {}},
       {"skip": ["mlp"]}, ["mlp"], {"01": {"skip": ["mlp"]}, "1": {}}]  # fmt: skip
ODD_TEXT = [b"\xff", b"\x00", b"[" * 2000, b"9" * 5000, b"-0", b"NaN", b"Infinity", b'"a":1,"a":2', b"\xef\xbb\xbf"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Return the sound checkpoints whose files are replaced."""
    return Stage(tmp_path_factory.mktemp("stage"))


def nodes(content):
    """Return every container in parsed JSON with each of its keys."""
    found, left = [], [content]
    while left:
        each = left.pop()
        if isinstance(each, dict | list):
            keys = list(each) if isinstance(each, dict) else range(len(each))
            found += [(each, key) for key in keys]
            left += [each[key] for key in keys]
    return found


@settings(max_examples=settings().max_examples * 2)
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_mutated_json_is_read_or_refused(stage, kind, data):
    """A file with a few values replaced, added or removed, and a few bytes changed, is read, or refused in one line."""
    content = json.loads(stage.sound[kind])
    for _ in range(data.draw(st.integers(0, 2))):
        holder, key = data.draw(st.sampled_from(nodes(content)))
        what = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if what == "replace":
            # A copy: what a later step changes in it would stay changed in ODD, for the next examples.
            holder[key] = deepcopy(data.draw(st.sampled_from(ODD)))
        elif what == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[
                data.draw(st.sampled_from(["per_layer_config", "auto_map", "x" * 5000, "\n", *map(str, range(3))]))
            ] = holder.pop(key)
        if not nodes(content):
            break
    text = json.dumps(content).encode()
    if data.draw(st.booleans()):
        begin = data.draw(st.integers(0, len(text)))
        text = text[:begin] + data.draw(st.sampled_from(ODD_TEXT)) + text[begin + data.draw(st.integers(0, 3)) :]
    stage.try_bytes(kind, text)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_json_is_read(stage, kind):
    """What was written is read, so that refusing all would not pass."""
    assert stage.try_bytes(kind, stage.sound[kind])


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_corpus_of_the_fuzzing(stage, name):
    """What the fuzzing starts from, and what it once found, is read, or refused in one line."""
    content = (CORPUS / name).read_bytes()
    stage.try_bytes(KINDS[content[0] % len(KINDS)], content[1:])
