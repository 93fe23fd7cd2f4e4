"""Small files of a pruned checkpoint, written so that they can be read again."""

import os
from collections.abc import Iterable
from pathlib import Path

from pruning.errors import CheckpointError
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.untrusted_files import MOST_JSON_BYTES

from .manifest import MOST_MANIFEST_BYTES

_MOST_BYTES = {MANIFEST_FILE: MOST_MANIFEST_BYTES}  # that are read of a file, if they are not those of any JSON


def write_lines(path: Path, lines: Iterable[str], sync: bool) -> None:
    """Write a file that is not there yet; with `sync` its bytes are on the disk before this returns.

    Raises CheckpointError if it is larger than what is read of such a file.
    """
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        most_bytes = _MOST_BYTES.get(path.name, MOST_JSON_BYTES)
        if (size := os.fstat(file.fileno()).st_size) > most_bytes:
            raise CheckpointError(
                f"{path.name} would have {size} bytes, of which at most {most_bytes} are read: "
                "the checkpoint has too many tensors, or their names are too long"
            )
        if sync:
            os.fsync(file.fileno())
