"""One property of all bytes: our reader of safetensors files is as strict as the library, and copies what both read."""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, deserialize

from pruning import CheckpointError
from pruning.files.shards import read_shard, shard_header
from tests.unit.either_way import either_way

# What we refuse and the library reads: where it silently drops a part of the header, and what no tensor can be; also
# what is wrong in an entry of which it reads a later one of the same name.
STRICTER = re.compile(
    r"should have a dtype, a shape and data_offsets, and nothing else"  # also fields as a list, which serde takes
    r"|has a shape that is not a list of sizes"  # beside a size of 0, others up to 2**64 - 1
)
LONGEST = 800  # characters of an error's line, its path included

Described = dict[str, tuple[str, list[int], bytes]]


def assert_as_the_library(path: Path, content: bytes) -> bool:
    """Check that a file of these bytes is read as the library reads it, or refused; return whether both read it.

    What both read is written again under a header of ours, and must then be, to the library, what it was.
    """
    path.write_bytes(content)
    theirs = _described_by_library(content)
    try:
        shard = either_way(lambda: read_shard(path))
    except CheckpointError as error:
        line = str(error)
        assert line.isprintable(), line
        assert len(line) <= LONGEST, line
        if theirs is not None:
            assert STRICTER.search(line) or _names_a_key_twice(content), f"the library reads what we refuse: {line}"
        return False
    parts = {tensor.name: content[tensor.begin : tensor.end] for tensor in shard.tensors}
    ours = {tensor.name: (tensor.dtype, list(tensor.shape), parts[tensor.name]) for tensor in shard.tensors}
    assert ours == theirs, "we read what the library refuses, or reads otherwise"
    copy = shard_header(shard.tensors, shard.metadata if shard.tensors else None) + b"".join(parts.values())
    assert _described_by_library(copy) == theirs, "our header does not say what was read"
    return True


def _names_a_key_twice(content: bytes) -> bool:
    twice: list[bool] = []
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    json.loads(header, object_pairs_hook=lambda pairs: twice.append(len(dict(pairs)) < len(pairs)))
    return any(twice)


def _described_by_library(content: bytes) -> Described | None:
    try:
        tensors = deserialize(content)
    except SafetensorError:
        return None
    return {name: (each["dtype"], list(each["shape"]), bytes(each["data"])) for name, each in tensors}
