"""The safetensors format: read headers, check them, and write the header of a shard that keeps fewer tensors.

The format (safetensors 0.8.0, `README.md` and `tensor.rs`): 8 bytes of little-endian header length; a JSON object,
padded with spaces, of name -> dtype, shape and data offsets [begin, end); the tensors' bytes, without holes.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pruning.errors import CheckpointError
from pruning.untrusted_files import MOST_JSON_BYTES, JsonText, shortened

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
            header = JsonText(_read_exactly(file, length, path))
        tensors, metadata = _read_header(header, 8 + length)
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


def _read_header(header: JsonText, data_start: int) -> tuple[list[Tensor], dict[str, str] | None]:
    tensors: list[Tensor] = []
    shapes: dict[Shape, Shape] = {}
    metadata = None
    end, in_place = data_start, True
    for name in header.read_keys():
        if name == "__metadata__":
            metadata = _checked_metadata(header.read_value())
        else:
            tensor = _checked_tensor(name, header.read_value(), data_start, shapes)
            tensors.append(tensor)
            in_place = in_place and tensor.begin == end
            end = tensor.end
    header.require_end()
    if not in_place:
        tensors.sort(key=attrgetter("begin", "end"))  # of those that begin alike, as empty ones do, by their end
        _require_in_place(tensors, data_start)
    return tensors, metadata


def _require_in_place(tensors: list[Tensor], data_start: int) -> None:
    """Raise ValueError unless each tensor begins where the one before it ends."""
    end = data_start
    for tensor in tensors:
        if tensor.begin != end:
            kind = "overlaps the tensor before it" if tensor.begin < end else "leaves a hole before it"
            raise ValueError(f"tensor {shortened(tensor.name)} {kind}")
        end = tensor.end


def _checked_metadata(metadata: Any) -> dict[str, str] | None:
    if metadata is not None and not (
        isinstance(metadata, dict) and all(_is_text(name) and _is_text(value) for name, value in metadata.items())
    ):
        raise ValueError("__metadata__ should map strings to strings")
    return metadata


def _checked_tensor(name: str, entry: Any, data_start: int, shapes: dict[Shape, Shape]) -> Tensor:
    if not _is_text(name):
        raise ValueError(f"the name {shortened(name)} is not Unicode text")
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise ValueError(f"tensor {shortened(name)} should have a dtype, a shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"tensor {shortened(name)} has the unknown dtype {shortened(dtype)}")
    if not are_counts(shape):
        raise ValueError(f"tensor {shortened(name)} has a shape that is not a list of sizes")
    if not are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shortened(name)} has data_offsets that are not a begin and an end")
    size = offsets[1] - offsets[0]
    if _bits(dtype, shape) != size * 8:
        raise ValueError(f"tensor {shortened(name)} has {size} bytes, which {dtype} {shortened(shape)} does not fill")
    # One string for all tensors of a dtype, and one tuple for all of a shape: the parser makes one for each.
    shape = tuple(shape)
    begin, end = data_start + offsets[0], data_start + offsets[1]
    return Tensor(name, sys.intern(dtype), shapes.setdefault(shape, shape), begin, end)


def _bits(dtype: str, shape: list[int]) -> int | None:
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
    return isinstance(value, str) and (value.isascii() or not _SURROGATE.search(value))


def are_counts(values: Any) -> bool:
    """Say whether a value from a file is a list of numbers such as a header may have: sizes, or offsets."""
    if not isinstance(values, list):
        return False
    for value in values:  # noqa: SIM110  # a load has hundreds of lists, and all(...) takes twice as long for each
        if type(value) is not int or not 0 <= value < 2**63:  # by type: True is an int, too, to isinstance
            return False
    return True


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
