"""Two directories exchange their names in one step, where the system and the file system have such a step."""

import ctypes
import errno
import os
from pathlib import Path

# Linux: renameat2(2). Neither Python nor, as far as we know, a library that is kept has it.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_THERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def exchange(first: Path, second: Path) -> bool:
    """Exchange what is at two names of one file system; at no moment is nothing at one of them.

    Returns False, with both as they were, where this cannot be done; raises OSError if it fails otherwise.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    names = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_THERE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
