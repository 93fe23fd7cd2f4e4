"""Files that strangers wrote: which may be read at all, and JSON as transformers reads it; errors of one line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from harness.errors import CannotRun
from pruning.files.source import never_a_checkpoint
from pruning.regular_files import is_within
from pruning.untrusted_files import is_deeper_than, shortened

# The largest tokenizer.json are some 30 MB; a sparse file of a terabyte costs its sender nothing.
_MOST_BYTES: Final = 10**9
_TEXT: Final = (".json", ".py", ".jinja", ".txt", ".model")
_READ: Final = (*_TEXT, ".safetensors")
_READ_FOLDERS: Final = ("additional_chat_templates", "custom_generate")  # of transformers 5.23.0
_MOST_LEVELS: Final = 200
MOST_LAYERS: Final = 10_000


def checkpoint_directory(checkpoint: str | Path) -> Path:
    """Return the directory that a user names, `~` expanded; raises CannotRun if there is none."""
    try:
        root = Path(checkpoint).expanduser()
    except RuntimeError as error:  # no such user
        raise CannotRun(f"{checkpoint} cannot be read: {error}") from None
    if not root.is_dir():
        raise CannotRun(f"{root} {never_a_checkpoint(root) or 'is no directory: name one that holds a checkpoint'}")
    return root


def require_readable(root: Path) -> None:
    """Raise CannotRun if a reader of a checkpoint, of whatever library, would wait for ever, or read what is not in it.

    The first is a FIFO or a device in a file's place, also behind a link (transformers 5.23.0 opens the shards that an
    index names without a look at what they are), and a file that is read as a whole and is absurdly large. The second
    is a link out of the directory, but for the hub cache's: whoever sent it would choose which of this machine's files
    are judged, and shown. No file is opened.
    """
    for path in root.rglob("*"):
        try:
            status = path.stat()
        except OSError:  # a link to nowhere, which is as good as no file
            continue
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise CannotRun(f"{path} is not a regular file: put the file itself in its place")
        if path.suffix in _TEXT and stat.S_ISREG(status.st_mode) and status.st_size > _MOST_BYTES:
            raise CannotRun(f"{path} has {status.st_size} bytes, more than any such file needs: remove it")
        if path.is_symlink() and _is_read(path, status) and not is_within(path, root):
            what = "folder" if stat.S_ISDIR(status.st_mode) else "file"
            raise CannotRun(
                f"{path} is a link to {shortened(os.path.realpath(path))}, which is outside the checkpoint: "
                f"put the {what} itself in its place"
            )


def _is_read(path: Path, status: os.stat_result) -> bool:
    return path.name in _READ_FOLDERS if stat.S_ISDIR(status.st_mode) else path.suffix in _READ


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; of a key that appears twice, the last.

    Raises ValueError, in one line that leaves the path to the caller, if it is missing, no regular file (a FIFO would
    be waited for), not UTF-8, malformed, or nested so deeply that what it holds could not be written again.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    try:
        content = json.loads(data.decode("utf-8"))
        if is_deeper_than(_MOST_LEVELS, content):
            raise ValueError("it is nested too deeply")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def read_json_or_none(path: Path) -> Any:
    """Return what a JSON file holds, None if it cannot be read."""
    try:
        return read_json(path)
    except ValueError:
        return None


def require_usable(content: dict[str, Any]) -> None:
    """Raise ValueError for what no reader survives: a key of tables that is none, a list as long as a number says."""
    if not isinstance(content.get("model_type"), (str, type(None))):
        raise ValueError("its model_type is no string")
    layers = content.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise ValueError(f"its num_hidden_layers is {layers}, more than any model has")
