"""Write a shard that keeps some of another's tensors: byte ranges from file to file, in constant memory."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .errors import CheckpointError
from .shards import Shard, Tensor, shard_header
from .threads import Job, Threads

Advance = Callable[[int], None]  # called with the bytes just done
Progress = Callable[[int, int], None]  # called with the bytes just done, and the bytes there are in all

# What a thread copies at a time: large enough that starting costs nothing, small enough that each has its share.
_RUN_BYTES = 32 * 2**20
# Small enough that what was read is hashed and written out of the processor's own cache, beside the pages it goes to.
_BUFFER_BYTES = 2**18
_BLOCK_BYTES = 512  # what st_blocks counts, whatever the file system's own blocks are (stat(2))


def write_shard(
    path: Path,
    source: Shard,
    tensors: Sequence[Tensor],
    *,
    checksum: bool,
    sync: bool,
    advance: Advance,
    threads: Threads,
) -> list[str | None]:
    """Write a new shard at `path` with some of `source`'s tensors, in their order; return a sha256 (hex) for each.

    Without `checksum` the list holds None, and the bytes go from file to file within the kernel where it can; in
    either case each is read once. Holes of the source, which hold no block and read as zeros, are holes in the copy.
    With `sync` the file is on the disk when `threads` end, not yet at the return.
    `advance` is called with the number of bytes just written. Raises CheckpointError if the source cannot be
    read or changes meanwhile, OSError if the new file cannot be written.
    """
    header = memoryview(shard_header(tensors, source.metadata))
    runs = list(_runs(tensors, len(header)))
    with _SourceFile(source) as input_file, ExitStack() as stack:
        output_file = stack.enter_context(path.open("xb", buffering=0))
        output = output_file.fileno()
        _write_all(output, header, 0)
        os.ftruncate(output, len(header) + sum(tensor.size for tensor in tensors))  # a hole may be its end
        checksums: list[list[str]] = [[] for _ in runs]
        if checksum:
            jobs = [_copy_hashing(input_file, output, *each) for each in zip(runs, checksums, strict=True)]
        else:
            # One job: the kernel copies into a file under a lock, for which threads would only wait.
            jobs = [_copy(input_file, output, runs)]
        threads.run(jobs, advance)
        input_file.require_unchanged()
        if sync:
            threads.run_behind(partial(os.fsync, output), stack.pop_all().close)
    return [each for run in checksums for each in run] if checksum else [None] * len(tensors)


def read_tensor(shard: Shard, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in parts; each part is valid until the next. Raises CheckpointError."""
    with _SourceFile(shard) as file:
        for part, _ in _read(file, tensor.begin, tensor.end):
            yield part
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
        # As few blocks as this also where the file system compresses: then there are no holes to be found.
        self._is_sparse = os.fstat(self.descriptor).st_blocks * _BLOCK_BYTES < shard.size

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

    def stretches(self, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yield begin and end of each stretch between two offsets, and whether bytes are stored there, or a hole is."""
        while begin < end:
            first = self._next(os.SEEK_DATA, begin, end) if self._is_sparse else begin
            if begin < first:
                yield begin, first, False
            if first < end:
                last = self._next(os.SEEK_HOLE, first, end) if self._is_sparse else end
                yield first, last, True
                first = last
            begin = first

    def _next(self, what: int, begin: int, end: int) -> int:
        try:
            return min(os.lseek(self.descriptor, begin, what), end)
        except OSError as error:
            # Nothing stored behind; or a file system that does not tell, where all counts as stored.
            return end if what == os.SEEK_HOLE or error.errno == errno.ENXIO else begin

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
        if run and (tensor.begin != run[-1].end or tensor.end - run[0].begin > _RUN_BYTES):
            yield _Run(run, offset)
            offset += run[-1].end - run[0].begin
            run = []
        run.append(tensor)
    if run:
        yield _Run(run, offset)


def _copy(source: _SourceFile, output: int, runs: Sequence[_Run]) -> Job:
    for run in runs:
        for begin, end, is_stored in source.stretches(run.begin, run.end):
            if is_stored:
                yield from _copy_stretch(source, output, begin, end, run.offset - run.begin)
            else:
                yield end - begin


def _copy_stretch(source: _SourceFile, output: int, begin: int, end: int, shift: int) -> Job:
    while begin < end:
        try:
            count = os.copy_file_range(
                source.descriptor, output, min(_RUN_BYTES, end - begin), offset_src=begin, offset_dst=begin + shift
            )
        except OSError:
            count = 0
        # Not supported by file system or kernel, the source at its end or unreadable, or no space left: reading
        # and writing tell them apart, and blame the right file.
        if count == 0:
            for part, _ in _read(source, begin, end):
                _write_all(output, part, begin + shift)
                begin += len(part)
                yield len(part)
            break
        begin += count
        yield count


def _copy_hashing(source: _SourceFile, output: int, run: _Run, checksums: list[str]) -> Job:
    parts, part, offset = _read(source, run.begin, run.end), memoryview(b""), run.offset
    for tensor in run.tensors:
        digest, missing = hashlib.sha256(), tensor.size
        while missing:
            if not part:
                part, is_stored = next(parts)
                if is_stored:
                    _write_all(output, part, offset)
                offset += len(part)
                yield len(part)
            hashed = part[:missing]
            digest.update(hashed)
            part, missing = part[len(hashed) :], missing - len(hashed)
        checksums.append(digest.hexdigest())


def _read(source: _SourceFile, begin: int, end: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield the bytes in parts, each valid until the next, and whether they are stored; those of a hole are zeros."""
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, end - begin)))
    for first, last, is_stored in source.stretches(begin, end):
        while first < last:
            count = source.read_into(buffer[: last - first], first)
            yield buffer[:count], is_stored
            first += count


def _write_all(output: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(output, data, offset)
        data, offset = data[count:], offset + count
