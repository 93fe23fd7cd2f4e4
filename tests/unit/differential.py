"""One property of all bytes: our reader of safetensors files is as strict as the library, and copies what both read."""

import re
from pathlib import Path

from safetensors import SafetensorError, deserialize

from pruning import CheckpointError
from pruning.files.shards import read_shard, shard_header

# What we refuse and the library reads: where it silently drops a part of the header, or reads fields from a list.
STRICTER = re.compile(r"should have a dtype, a shape and data_offsets, and nothing else|the key .* appears twice")
LONGEST = 800  # characters of an error's line, its path included

Described = dict[str, tuple[str, list[int], bytes]]


def assert_as_the_library(path: Path, content: bytes) -> bool:
    """Check that a file of these bytes is read as the library reads it, or refused; return whether both read it.

    What both read is written again under a header of ours, and must then be, to the library, what it was.
    """
    path.write_bytes(content)
    theirs = _described_by_library(content)
    try:
        shard = read_shard(path)
    except CheckpointError as error:
        line = str(error)
        assert line.isprintable(), line
        assert len(line) <= LONGEST, line
        if theirs is not None:
            assert STRICTER.search(line), f"the library reads what we refuse: {line}"
        return False
    parts = {tensor.name: content[tensor.begin : tensor.end] for tensor in shard.tensors}
    ours = {tensor.name: (tensor.dtype, list(tensor.shape), parts[tensor.name]) for tensor in shard.tensors}
    assert ours == theirs, "we read what the library refuses, or reads otherwise"
    copy = shard_header(shard.tensors, shard.metadata if shard.tensors else None) + b"".join(parts.values())
    assert _described_by_library(copy) == theirs, "our header does not say what was read"
    return True


def _described_by_library(content: bytes) -> Described | None:
    try:
        tensors = deserialize(content)
    except SafetensorError:
        return None
    return {name: (each["dtype"], list(each["shape"]), bytes(each["data"])) for name, each in tensors}
