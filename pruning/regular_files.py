"""Files that strangers named: whether one is there, lies where it should, and is no FIFO or device."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import CheckpointError


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises OSError for what is none: opening a FIFO would wait for a writer, and a device has no end.
    """
    # Asked before, since opening a device can do something; and after, since the name may lead elsewhere by then.
    _require_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def is_file(path: Path) -> bool:
    """Whether a file is there; raises CheckpointError for what is there and is no file, or cannot be looked at."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a regular file: put the file itself in its place")
    return True


def is_within(file: Path, root: Path) -> bool:
    """Whether a file lies in a directory, or, where it is a link, in the blobs of the hub's cache.

    A blob is models--<owner>--<name>/blobs/<checksum> (huggingface_hub 2.4.0, `file_download.py`).
    """
    real = Path(os.path.realpath(file))
    is_blob = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    return is_blob or real.is_relative_to(os.path.realpath(root))
