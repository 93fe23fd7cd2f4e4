"""JSON that strangers wrote, read as transformers reads it: whatever is wrong with it is one error of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_MOST_LEVELS: Final = 200


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
        _require_shallow(content)
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


def _require_shallow(content: Any) -> None:
    level = [content]
    for _ in range(_MOST_LEVELS):
        level = [
            value
            for each in level
            if isinstance(each, (dict, list))
            for value in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise ValueError("it is nested too deeply")
