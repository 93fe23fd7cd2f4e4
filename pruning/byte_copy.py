"""Write a shard that keeps some of another's tensors: byte ranges from file to file, in constant memory."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import CheckpointError
from .shards import Shard, Tensor, shard_header

Advance = Callable[[int], None]  # called with the bytes just done
Progress = Callable[[int, int], None]  # called with the bytes just done, and the bytes there are in all

# Large enough that the calls cost nothing, small enough that progress shows.
_RANGE_BYTES = 64 * 2**20
_BUFFER_BYTES = 4 * 2**20


def write_shard(
    path: Path,
    source: Shard,
    tensors: Sequence[Tensor],
    *,
    checksum: bool,
    sync: bool,
    advance: Advance,
) -> list[str | None]:
    """Write a new shard at `path` with some of `source`'s tensors, in their order; return a sha256 (hex) for each.

    Without `checksum` the list holds None, and the bytes go from file to file within the kernel where it can.
    `advance` is called with the number of bytes just written. Raises CheckpointError if the source cannot be
    read or changes meanwhile, OSError if the new file cannot be written.
    """
    with _SourceFile(source) as input_file, path.open("xb", buffering=0) as output_file:
        _write_all(output_file.fileno(), memoryview(shard_header(tensors, source.metadata)))
        checksums: list[str | None] = [None] * len(tensors)
        if checksum:
            checksums = list(_copy_hashing(input_file, output_file.fileno(), tensors, advance))
        else:
            for begin, end in _merged_ranges(tensors):
                _copy_range(input_file, output_file.fileno(), begin, end, advance)
        input_file.require_unchanged()
        if sync:
            os.fsync(output_file.fileno())
    return checksums


def read_tensor(shard: Shard, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in parts; each part is valid until the next. Raises CheckpointError."""
    with _SourceFile(shard) as file:
        yield from _read(file, tensor.begin, tensor.end)
        file.require_unchanged()


class _SourceFile:
    """The source's file, open for reading, with errors that name it."""

    def __init__(self, shard: Shard) -> None:
        self.path = shard.path
        try:
            self._file = shard.path.open("rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{shard.path} cannot be read: {error.strerror}") from None
        self._described = (shard.size, shard.modified_ns)

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def __enter__(self) -> "_SourceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_into(self, buffer: memoryview, offset: int) -> int:
        try:
            count = os.preadv(self.descriptor, [buffer], offset)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read at byte {offset}: {error.strerror}") from None
        if count == 0:
            raise self._changed()
        return count

    def require_unchanged(self) -> None:
        """Raise CheckpointError if the file is not the one whose header was read, or was written to since."""
        status = os.fstat(self.descriptor)
        if (status.st_size, status.st_mtime_ns) != self._described:
            raise self._changed()

    def _changed(self) -> CheckpointError:
        return CheckpointError(f"{self.path} changed while it was read: try again when nothing writes to it")


def _merged_ranges(tensors: Sequence[Tensor]) -> Iterator[tuple[int, int]]:
    begin = end = -1
    for tensor in tensors:
        if tensor.begin != end:
            if end > begin:
                yield begin, end
            begin = tensor.begin
        end = tensor.end
    if end > begin:
        yield begin, end


def _copy_range(source: _SourceFile, output: int, begin: int, end: int, advance: Advance) -> None:
    while begin < end:
        try:
            count = os.copy_file_range(source.descriptor, output, min(_RANGE_BYTES, end - begin), offset_src=begin)
        except OSError:
            count = 0
        # Not supported by file system or kernel, the source at its end or unreadable, or no space left: reading and
        # writing tell them apart, and blame the right file.
        if count == 0:
            _copy_reading(source, output, begin, end, advance)
            return
        begin += count
        advance(count)


def _copy_reading(source: _SourceFile, output: int, begin: int, end: int, advance: Advance) -> None:
    for part in _read(source, begin, end):
        _write_all(output, part)
        advance(len(part))


def _copy_hashing(source: _SourceFile, output: int, tensors: Sequence[Tensor], advance: Advance) -> Iterator[str]:
    for tensor in tensors:
        digest = hashlib.sha256()
        for part in _read(source, tensor.begin, tensor.end):
            digest.update(part)
            _write_all(output, part)
            advance(len(part))
        yield digest.hexdigest()


def _read(source: _SourceFile, begin: int, end: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, end - begin)))
    while begin < end:
        count = source.read_into(buffer[: end - begin], begin)
        yield buffer[:count]
        begin += count


def _write_all(output: int, data: memoryview) -> None:
    while data:
        data = data[os.write(output, data) :]
