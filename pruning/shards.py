"""The safetensors format: read headers, check them, and write the header of a shard that keeps fewer tensors.

The format (safetensors 0.8.0, `README.md` and `tensor.rs`): 8 bytes of little-endian header length; a JSON object,
padded with spaces, of name -> dtype, shape and data offsets [begin, end); the tensors' bytes, without holes.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .errors import CheckpointError
from .json_files import MOST_JSON_BYTES, parse_json, shortened
from .regular_files import open_regular

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Bits an element (safetensors 0.8.0, `tensor.rs`, Dtype::bitsize).
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_GIT_LFS_POINTER = b"version https://git-lfs"
_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a header describes it; `begin` and `end` count bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
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
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str] | None
    size: int
    modified_ns: int


def read_shard(path: Path) -> Shard:
    """Read and check the header of a safetensors file.

    Raises CheckpointError, in one line, if the file is missing or truncated, or its header is not one that the
    safetensors library accepts.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            start = file.read(8)
            if start + file.read(len(_GIT_LFS_POINTER) - 8) == _GIT_LFS_POINTER:
                raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run 'git lfs pull'")
            length = int.from_bytes(start, "little")
            if len(start) < 8 or 8 + length > size:
                raise CheckpointError(f"{path} is truncated: it has {size} bytes, its header alone should have more")
            if length > MOST_JSON_BYTES:
                raise CheckpointError(f"{path}: its header of {length} bytes exceeds the limit of {MOST_JSON_BYTES}")
            file.seek(8)
            # Without a name here: parse_json lets go of the bytes before it makes many times as much of them.
            header = parse_json(_read_exactly(file, length, path), parse_int=_count, object_hook=_smaller)
        if not isinstance(header, dict):
            raise ValueError("not a JSON object")
        metadata = _checked_metadata(header.pop("__metadata__", None))
        tensors = _checked_tensors(header, 8 + length)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: its header is broken: {error}") from None
    end = tensors[-1].end if tensors else 8 + length
    if end > size:
        raise CheckpointError(f"{path} is truncated: it has {size} bytes, but should have {end}")
    if end < size:
        raise CheckpointError(f"{path} has {size - end} bytes behind its last tensor, but should have none")
    return Shard(path=path, tensors=tensors, metadata=metadata, size=size, modified_ns=status.st_mtime_ns)


def _read_exactly(file: BinaryIO, length: int, path: Path) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise CheckpointError(f"{path} changed while it was read: try again when nothing writes to it")
    return data


def _checked_metadata(metadata: Any) -> dict[str, str] | None:
    if metadata is not None and not (
        isinstance(metadata, dict) and all(_is_text(name) and _is_text(value) for name, value in metadata.items())
    ):
        raise ValueError("__metadata__ should map strings to strings")
    return metadata


class _Entry(NamedTuple):
    """What a header says of a tensor; of a million, as dictionaries and lists they would take twice the memory.

    What should be a list and is none is a tuple of None, which no check lets pass.
    """

    dtype: Any
    shape: tuple[Any, ...]
    data_offsets: tuple[Any, ...]


def _smaller(entry: dict[str, Any]) -> dict[str, Any] | _Entry:
    """Return an object of a header as an entry, if it has the form of one."""
    if entry.keys() != _ENTRY_KEYS or (isinstance(entry["shape"], str) and isinstance(entry["data_offsets"], str)):
        return entry  # the latter may be the metadata, of strings alone
    dtype = entry["dtype"]
    if isinstance(dtype, str):
        dtype = sys.intern(dtype)  # one string for all tensors of a dtype: the parser makes one for each
    return _Entry(dtype, _tuple(entry["shape"]), _tuple(entry["data_offsets"]))


def _tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list) else (None,)


def _checked_tensors(header: dict[str, Any], data_start: int) -> tuple[Tensor, ...]:
    # Each entry goes as its tensor comes: of a million, both together would be in memory.
    tensors = [_checked_tensor(name, header.pop(name), data_start) for name in list(header)]
    tensors.sort(key=attrgetter("end"))
    tensors.sort(key=attrgetter("begin"))  # and of those that begin alike, as empty ones do, by their end
    end = data_start
    for tensor in tensors:
        if tensor.begin != end:
            kind = "overlaps the tensor before it" if tensor.begin < end else "leaves a hole before it"
            raise ValueError(f"tensor {shortened(tensor.name)} {kind}")
        end = tensor.end
    return tuple(tensors)


def _checked_tensor(name: str, entry: Any, data_start: int) -> Tensor:
    if not _is_text(name):
        raise ValueError(f"the name {shortened(name)} is not Unicode text")
    if not isinstance(entry, _Entry):
        raise ValueError(f"tensor {shortened(name)} should have a dtype, a shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"tensor {shortened(name)} has the unknown dtype {shortened(dtype)}")
    if not _are_counts(shape):
        raise ValueError(f"tensor {shortened(name)} has a shape that is not a list of sizes")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shortened(name)} has data_offsets that are not a begin and an end")
    size = offsets[1] - offsets[0]
    if _bits(dtype, shape) != size * 8:
        shown = shortened(list(shape))
        raise ValueError(f"tensor {shortened(name)} has {size} bytes, which {dtype} {shown} does not fill")
    return Tensor(name, dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _bits(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Return the bits of a tensor; None where they, or a product on the way to them, exceed 64 bits.

    The library refuses those too, also where a later size is 0 (safetensors 0.8.0, `tensor.rs`, checked_mul); and
    the product of millions of sizes would take hours.
    """
    bits = 1
    for size in (*shape, _BITS[dtype]):
        bits *= size
        if bits >= 2**64:
            return None
    return bits


def _is_text(value: Any) -> bool:
    """Say whether a value is a string that UTF-8 can hold: JSON can also spell halves of surrogate pairs."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def _are_counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 2**63 for value in values)  # True is one, too, to isinstance


def _count(text: str) -> int | float:
    """Return an integer of a header; as a float, which is no count, where it is negative, -0 too, or far too long."""
    return int(text) if text.isdigit() and len(text) < 20 else math.nan


def shard_header(tensors: Iterable[Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """Return the start of a safetensors file, length included, for tensors whose bytes follow in this order."""
    data = f"{{{','.join(_header_entries(tensors, metadata))}}}".encode()
    data += b" " * (-len(data) % 8)  # the tensors' bytes begin at a multiple of 8, as the library has it
    return len(data).to_bytes(8, "little") + data


def _header_entries(tensors: Iterable[Tensor], metadata: Mapping[str, str] | None) -> Iterator[str]:
    """Yield the text of each: of a million, dictionaries would take several times the memory, and the time."""
    if metadata is not None:
        yield f'"__metadata__":{_to_json(dict(metadata))}'
    begin = 0
    for tensor in tensors:
        end = begin + tensor.size
        shape = ",".join(map(str, tensor.shape))
        yield f'{_to_json(tensor.name)}:{{"dtype":"{tensor.dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}'
        begin = end


def shard_names(count: int) -> list[str]:
    """Return the file names of a checkpoint of `count` shards, as transformers names them."""
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
