"""Read JSON that strangers wrote: one clear error for whatever is wrong with it."""

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .regular_files import open_regular

# The format's own limit for a safetensors header (safetensors 0.8.0, `tensor.rs`, MAX_HEADER_SIZE) serves all files.
MOST_JSON_BYTES = 100_000_000
_MOST_LEVELS = 100
_MOST_DIGITS = 1000  # Python's own limit is 4300 for reading and for writing
_MOST_SHOWN = 200  # characters: longer than any name that is meant


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Have Python not look for cycles: JSON has none, and a million tensors would be looked through repeatedly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def parse_json(
    data: bytes,
    parse_int: Callable[[str], Any] | None = None,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
) -> Any:
    """Parse JSON, integers by `parse_int` and each object by `object_hook`, as json.loads has them.

    Raises ValueError, in one short line, if it is malformed, not UTF-8, or names a key twice.
    """
    try:
        text = data.decode("utf-8")
        del data  # a large file need not be in memory twice while it is parsed
        return json.loads(text, object_pairs_hook=_objects(object_hook), parse_int=parse_int or _integer)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, from_pipe: bool = False) -> Any:
    """Read a JSON file. Raises ValueError, in one line that leaves the path to the caller.

    What is no regular file is refused, since reading it may never end; `from_pipe` reads it all the same.
    """
    content = parse_json(_read_bytes(path, from_pipe))  # without a name here: parse_json lets go of them
    if is_deeper_than(_MOST_LEVELS, content):
        raise ValueError("nested too deeply")
    return content


def _read_bytes(path: Path, from_pipe: bool) -> bytes:
    try:
        with path.open("rb") if from_pipe else open_regular(path) as file:
            data = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"larger than {MOST_JSON_BYTES} bytes")
    return data


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


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _objects(object_hook: Callable[[dict[str, Any]], Any] | None) -> Callable[[list[tuple[str, Any]]], Any]:
    return _without_duplicates if object_hook is None else lambda pairs: object_hook(_without_duplicates(pairs))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shortened(twice)} appears twice")
    return result
