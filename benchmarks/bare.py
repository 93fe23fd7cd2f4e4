"""The bare work that pruning cannot do without: the floor of the figures of writing."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

Ranges = dict[str, list[tuple[int, int]]]  # by shard: first byte, and the byte behind the last

_RANGE_BYTES = 64 * 2**20
_BUFFER_BYTES = 2**18


def kept_ranges(source: Path, pruned: Path) -> Ranges:
    """Return the bytes of `source` that a checkpoint pruned from it holds, adjacent ones as one range.

    Read from both by the safetensors library alone, so that the work is that of the files, not of what we think it is.
    """
    kept = set()
    for path in pruned.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            kept.update(file.keys())
    ranges: Ranges = {}
    for path in sorted(source.glob("*.safetensors")):
        for begin, end in _tensor_ranges(path, kept):
            of_file = ranges.setdefault(path.name, [])
            if of_file and of_file[-1][1] == begin:
                of_file[-1] = (of_file[-1][0], end)
            else:
                of_file.append((begin, end))
    return ranges


def _tensor_ranges(path: Path, names: set[str]) -> Iterator[tuple[int, int]]:
    import json

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for begin, end in sorted(entry["data_offsets"] for name, entry in header.items() if name in names):
        yield 8 + length + begin, 8 + length + end


def size(ranges: Ranges) -> int:
    """Return the bytes of all ranges."""
    return sum(end - begin for of_file in ranges.values() for begin, end in of_file)


def copy(source: Path, destination: Path, ranges: Ranges, *, sync: bool = False) -> None:
    """Copy the ranges within the kernel, file by file; with `sync` wait until each file is on the disk."""
    destination.mkdir()
    for name, of_file in ranges.items():
        with (source / name).open("rb") as reader, (destination / name).open("xb") as writer:
            for begin, end in of_file:
                while begin < end:
                    begin += os.copy_file_range(
                        reader.fileno(), writer.fileno(), min(_RANGE_BYTES, end - begin), offset_src=begin
                    )
            if sync:
                os.fsync(writer.fileno())


def checksum(source: Path, ranges: Ranges) -> list[str]:
    """Read the ranges through one buffer and return a sha256 of each, in hex."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    checksums = []
    for name, of_file in ranges.items():
        with (source / name).open("rb", buffering=0) as reader:
            for begin, end in of_file:
                digest = hashlib.sha256()
                while begin < end:
                    count = os.preadv(reader.fileno(), [buffer[: end - begin]], begin)
                    digest.update(buffer[:count])
                    begin += count
                checksums.append(digest.hexdigest())
    return checksums


def sync(directory: Path) -> None:
    """Wait until every file of a directory is on the disk."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
