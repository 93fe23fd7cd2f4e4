"""Read JSON that strangers wrote: what is wrong with it is one short line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .regular_files import open_regular

# The format's own limit for a safetensors header (safetensors 0.8.0, `tensor.rs`, MAX_HEADER_SIZE) serves all files.
MOST_JSON_BYTES = 100_000_000
_MOST_LEVELS = 100
_MOST_DIGITS = 1000  # Python's own limit is 4300, and its message names a way around it
_MOST_SHOWN = 200  # characters: longer than any name that is meant


def read_json(path: Path, *, from_pipe: bool = False) -> Any:
    """Return what a JSON file holds. Raises ValueError as `parse_json` does; the line leaves the path to the caller.

    What is not a regular file is refused, since reading it may never end; `from_pipe` reads it all the same.
    """
    try:
        with path.open("rb") if from_pipe else open_regular(path) as file:
            data = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"larger than {MOST_JSON_BYTES} bytes")
    return parse_json(data)


def parse_json(data: bytes) -> Any:
    """Return what `json.loads` makes of UTF-8 text, but -0 is a float.

    Raises ValueError, in one short line, if the text is malformed, names a key twice or is nested too deeply.
    """
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if is_deeper_than(_MOST_LEVELS, content):
        raise ValueError("nested too deeply")
    return content


def is_deeper_than(levels: int, content: Any) -> bool:
    """Whether parsed JSON nests further: json.loads may read what json.dumps, deeper in the stack, cannot write."""
    level = [content]
    for _ in range(levels):
        level = [
            value
            for each in level
            if isinstance(each, (dict, list))
            for value in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def shortened(value: object, longest: int = _MOST_SHOWN) -> str:
    """Return a value from a stranger's file as Python writes it, in at most `longest` characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested, or with an int of more digits, than Python prints
        text = f"a {type(value).__name__} too long to print"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _integer(text: str) -> int | float:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    # The safetensors library has it so, too, and does not take it for a size (serde_json 1.0, `de.rs`, parse_number).
    return int(text) if text != "-0" else -0.0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shortened(twice)} appears twice")
    return result
