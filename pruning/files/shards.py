"""The safetensors format: read headers, and write the header of a shard that keeps fewer tensors.

The format (safetensors 0.8.0, `README.md` and `tensor.rs`): 8 bytes of little-endian header length; a JSON object,
padded with spaces, of name -> dtype, shape and data offsets [begin, end); the tensors' bytes, without holes. Whether a
header keeps to it is for the safetensors library to say.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, deserialize

from pruning.errors import CheckpointError
from pruning.regular_files import open_regular
from pruning.untrusted_files import MOST_JSON_BYTES, parse_json, shortened

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_GIT_LFS_POINTER = b"version https://git-lfs"
_LENGTH_BYTES = 8

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """A tensor as a header describes it; `begin` and `end` count bytes from the start of the file."""

    name: str
    dtype: str
    shape: Shape
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """A safetensors file: its tensors in the order of their bytes, and its `__metadata__`, if it has any.

    Its size and its time of change tell whether the bytes are still those that the header was read with.
    """

    path: Path
    tensors: Sequence[Tensor]
    metadata: Mapping[str, str] | None
    size: int
    modified_ns: int


def read_shard(path: Path) -> Shard:
    """Read and check the header of a safetensors file.

    Raises CheckpointError, in one line, if the file is missing or truncated, or its header is one that the safetensors
    library refuses, or of which it silently drops a part.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            start = file.read(_LENGTH_BYTES)
            if start + file.read(len(_GIT_LFS_POINTER) - _LENGTH_BYTES) == _GIT_LFS_POINTER:
                raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run 'git lfs pull'")
            length = int.from_bytes(start, "little")
            data_start = _LENGTH_BYTES + length
            if len(start) < _LENGTH_BYTES or data_start > size:
                raise CheckpointError(f"{path} is truncated: it has {size} bytes, its header alone should have more")
            if length > MOST_JSON_BYTES:
                raise CheckpointError(f"{path}: its header of {length} bytes exceeds the limit of {MOST_JSON_BYTES}")
            file.seek(_LENGTH_BYTES)
            header = file.read(length)
        _require_accepted(start + header)
        tensors, metadata = _read_header(header, data_start)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: its header is broken: {error}") from None
    end = tensors[-1].end if tensors else data_start
    if end > size:
        raise CheckpointError(f"{path} is truncated: it has {size} bytes, but should have {end}")
    if end < size:
        raise CheckpointError(f"{path} has {size - end} bytes behind its last tensor, but should have none")
    return Shard(path=path, tensors=tensors, metadata=metadata, size=size, modified_ns=status.st_mtime_ns)


def _require_accepted(start: bytes) -> None:
    """Raise ValueError if the safetensors library refuses the start of a file, length and header.

    `safe_open` needs numpy. So the library reads the start alone, and misses the tensors' bytes: what it objects to
    then in a sound header is not a fault of this one.
    """
    sound = shard_header([Tensor("", "U8", (1,), 0, 1)], None)
    objection = _objection(start)
    if objection not in (None, _objection(sound)):
        raise ValueError(shortened(objection))


def _objection(content: bytes) -> str | None:
    try:
        deserialize(content)
    except SafetensorError as error:
        return str(error)
    return None


def _read_header(header: bytes, data_start: int) -> tuple[list[Tensor], dict[str, str] | None]:
    """Return the tensors in the order of their bytes, and the metadata, of a header that the library accepts."""
    entries = parse_json(header)
    metadata = entries.pop("__metadata__", None)
    tensors = [_read_entry(name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=attrgetter("begin", "end"))  # of those that begin alike, as empty ones do, by their end
    return tensors, metadata


def _read_entry(name: str, entry: Any, data_start: int) -> Tensor:
    # The library passes over what else there is, and also reads the three as a list.
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise ValueError(f"tensor {shortened(name)} should have a dtype, a shape and data_offsets, and nothing else")
    begin, end = entry["data_offsets"]
    return Tensor(name, entry["dtype"], tuple(entry["shape"]), data_start + begin, data_start + end)


def shard_header(tensors: Iterable[Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """Return the start of a safetensors file, length included, for tensors whose bytes follow in this order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.size
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
        begin = end
    data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    data += b" " * (-len(data) % 8)  # the tensors' bytes begin at a multiple of 8, as the library has it
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def shard_names(count: int) -> list[str]:
    """Return the file names of a checkpoint of `count` shards, as transformers names them."""
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
