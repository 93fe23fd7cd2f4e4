"""Write shards that keep some of others' tensors: byte ranges from file to file, in constant memory."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pruning.errors import CheckpointError
from pruning.files.shards import Shard, Tensor, shard_header

from .threads import run_side_by_side

Advance = Callable[[int], None]  # called with the bytes just done
Progress = Callable[[int, int], None]  # called with the bytes just done, and the bytes there are in all

# What a thread does at a time: large enough that starting costs nothing, small enough that each has its share.
_SHARE_BYTES = 32 * 2**20
# Small enough that what was read is hashed and written out of the processor's own cache, beside the pages it goes to.
_BUFFER_BYTES = 2**18

_Job = Iterator[int]  # yields the bytes just written
_Share = tuple[Sequence[Tensor], int]  # tensors, one behind the other in the new file, and where the first begins


@dataclass(frozen=True)
class NewShard:
    """A shard to write: its file's name, the shard that its bytes come from, and which of its tensors it keeps."""

    name: str
    source: Shard
    tensors: tuple[Tensor, ...]


def write_shards(
    directory: Path, shards: Sequence[NewShard], *, checksum: bool, sync: bool, advance: Advance
) -> dict[str, str]:
    """Write new shards to `directory`; return the sha256 (hex) of each tensor by its name, none without `checksum`.

    Without `checksum` the bytes go from file to file within the kernel where it can; in either case each is read
    once. With `sync` the files are on the disk at the return, their directory's entries not yet.
    `advance` is called with the number of bytes just written. Raises CheckpointError if a source cannot be read or
    changes meanwhile, OSError if a new file cannot be written.
    """
    checksums: dict[str, str] = {}
    run_side_by_side(_jobs(directory, shards, checksums if checksum else None, sync), advance)
    return checksums


def _jobs(directory: Path, shards: Sequence[NewShard], checksums: dict[str, str] | None, sync: bool) -> Iterator[_Job]:
    """Make each file, and yield the jobs that fill it.

    Shares of a file are hashed side by side. Without checksums one job copies them all, since the kernel copies into
    a file under a lock, for which threads would only wait; different files are copied side by side.
    """
    for shard in shards:
        header = memoryview(shard_header(shard.tensors, shard.source.metadata))
        path = directory / shard.name
        with path.open("xb", buffering=0) as file:
            _write_all(file.fileno(), header, 0)
        shares = list(_shares(shard.tensors, len(header)))
        for of_job in [shares] if checksums is None else [[share] for share in shares]:
            yield _copy_shares(shard.source, path, of_job, checksums, sync)


def _shares(tensors: Sequence[Tensor], offset: int) -> Iterator[_Share]:
    share: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if share and size + tensor.size > _SHARE_BYTES:
            yield share, offset
            share, size, offset = [], 0, offset + size
        share.append(tensor)
        size += tensor.size
    yield share, offset  # one at least: a file without tensors has to be synced, too


def _copy_shares(
    source: Shard, path: Path, shares: Sequence[_Share], checksums: dict[str, str] | None, sync: bool
) -> _Job:
    # Opened by each job, so that no more files are open than jobs run.
    with _SourceFile(source) as source_file, path.open("r+b", buffering=0) as file:
        for tensors, offset in shares:
            for run in _runs(tensors, offset):
                if checksums is None:
                    yield from _copy(source_file, file.fileno(), run)
                else:
                    yield from _copy_hashing(source_file, file.fileno(), run, checksums)
            source_file.require_unchanged()
            if sync:
                os.fsync(file.fileno())  # while other threads go on


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


@dataclass(frozen=True, slots=True)
class _Run:
    """Tensors, one behind the other in both files; `offset` is where the first begins in the new one."""

    tensors: Sequence[Tensor]
    offset: int

    @property
    def begin(self) -> int:
        return self.tensors[0].begin

    @property
    def end(self) -> int:
        return self.tensors[-1].end


def _runs(tensors: Sequence[Tensor], offset: int) -> Iterator[_Run]:
    run: list[Tensor] = []
    for tensor in tensors:
        if run and tensor.begin != run[-1].end:
            yield _Run(run, offset)
            offset += run[-1].end - run[0].begin
            run = []
        run.append(tensor)
    if run:
        yield _Run(run, offset)


def _copy(source: _SourceFile, output: int, run: _Run) -> Iterator[int]:
    begin, end, shift = run.begin, run.end, run.offset - run.begin
    while begin < end:
        try:
            count = os.copy_file_range(
                source.descriptor, output, min(_SHARE_BYTES, end - begin), offset_src=begin, offset_dst=begin + shift
            )
        except OSError:
            count = 0
        # Not supported by file system or kernel, the source at its end or unreadable, or no space left: reading
        # and writing tell them apart, and blame the right file.
        if count == 0:
            for part in _read(source, begin, end):
                _write_all(output, part, begin + shift)
                begin += len(part)
                yield len(part)
            break
        begin += count
        yield count


def _copy_hashing(source: _SourceFile, output: int, run: _Run, checksums: dict[str, str]) -> Iterator[int]:
    parts, part, offset = _read(source, run.begin, run.end), memoryview(b""), run.offset
    for tensor in run.tensors:
        digest, missing = hashlib.sha256(), tensor.size
        while missing:
            if not part:
                part = next(parts)
                _write_all(output, part, offset)
                offset += len(part)
                yield len(part)
            hashed = part[:missing]
            digest.update(hashed)
            part, missing = part[len(hashed) :], missing - len(hashed)
        checksums[tensor.name] = digest.hexdigest()


def _read(source: _SourceFile, begin: int, end: int) -> Iterator[memoryview]:
    """Yield the bytes in parts, each valid until the next."""
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, end - begin)))
    while begin < end:
        count = source.read_into(buffer[: end - begin], begin)
        yield buffer[:count]
        begin += count


def _write_all(output: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(output, data, offset)
        data, offset = data[count:], offset + count
