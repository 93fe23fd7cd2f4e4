"""Read JSON that strangers wrote, value by value or whole: one clear error for whatever is wrong with it."""

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pruning.files.regular_files import open_regular

# The format's own limit for a safetensors header (safetensors 0.8.0, `tensor.rs`, MAX_HEADER_SIZE) serves all files.
MOST_JSON_BYTES = 100_000_000
# Of one file; each takes 80 bytes at most besides its text, so that no file takes more than a few gigabytes.
_MOST_VALUES = 35_000_000
MOST_LEVELS = 100
_MOST_DIGITS = 1000  # Python's own limit is 4300 for reading and for writing
_MOST_SHOWN = 200  # characters: longer than any name that is meant
_MOST_AT_ONCE = 2**18  # characters: the header of two thousand tensors
_NO_SPACE = re.compile(r"[^ \t\n\r]")
_SPACE = r"[ \t\n\r]*"
# A plain key behind the brace, or the comma, before it, with all that is around it: one step in place of five.
_KEY_BEHIND = {
    separator: re.compile(rf'{_SPACE}{re.escape(separator)}{_SPACE}"([^"\\\x00-\x1f]*)"{_SPACE}:{_SPACE}')
    for separator in "{,"
}


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


class JsonText:
    """A JSON document, read from its start to its end: of a million tensors only what is made of each stays.

    >>> text = JsonText(b'{"plan": {"mlp": [7]}, "kept": {"a": [1], "b": [2]}}')
    >>> for key in text.read_keys():
    ...     print(key, [(name, text.read_value()) for name in text.read_keys()])
    plan [('mlp', [7])]
    kept [('a', [1]), ('b', [2])]

    Every method raises ValueError, in one short line, if what it reads is malformed, or names a key twice.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
        if self._text.count(",") >= _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES} values")
        if self._text.startswith("\ufeff"):
            raise self._error("Unexpected UTF-8 BOM (decode using utf-8-sig)", 0)
        self._position = 0
        decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
        self._read = decoder.raw_decode
        # What is small is parsed at once, which takes a load less time; what is wrong with it, reading by value tells.
        self._is_parsed = False
        if len(self._text) <= _MOST_AT_ONCE:
            with suppress(ValueError, RecursionError):
                self._parsed = decoder.decode(self._text)
                self._is_parsed = True

    def read_value(self) -> Any:
        """Read the value that comes next, as json.loads has it, but for -0, which is a float."""
        return self._parsed if self._is_parsed else self._value_at(self._behind_space())

    def read_keys(self, otherwise: str = "not a JSON object") -> Iterator[str]:
        """Read the object that comes next: yield each key, whose value is to be read before the next one is asked for.

        That a key comes twice is told behind the last. If what comes is no object, `otherwise` is what is told.
        """
        if self._is_parsed:
            content = self._parsed
            if not isinstance(content, dict):
                raise ValueError(otherwise)
            for key, self._parsed in content.items():
                yield key
            return
        if not self._text.startswith("{", self._behind_space()):
            self.read_value()  # raises if it is not even JSON
            raise ValueError(otherwise)
        keys: list[str] = []
        in_order = True
        key = self._read_key_behind("{")
        while key is not None:
            in_order = in_order and (not keys or keys[-1] < key)
            keys.append(key)
            yield key
            key = self._read_key_behind(",")
        if not in_order:  # else they differ, as those of most checkpoints are seen to without a set of a million
            _require_once(keys)

    def require_end(self) -> None:
        """Raise ValueError unless only white space is left."""
        if not self._is_parsed and self._next():
            raise self._error("Extra data", self._position - 1)

    def _read_key_behind(self, separator: str) -> str | None:
        """Read up to the next value of an object: return its key, None if the object ends instead."""
        if found := _KEY_BEHIND[separator].match(self._text, self._position):
            self._position = found.end()
            return found[1]
        following = self._next()
        if following == "}":
            return None
        if following != separator:
            raise self._expected("',' delimiter")
        following = self._next()
        if separator == "{" and following == "}":
            return None
        if following != '"':
            raise self._expected("property name enclosed in double quotes")
        key: str = self._value_at(self._position - 1)
        if self._next() != ":":
            raise self._expected("':' delimiter")
        return key

    def _value_at(self, position: int) -> Any:
        try:
            value, self._position = self._read(self._text, position)
        except json.JSONDecodeError as error:
            raise self._error(error.msg, error.pos) from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return value

    def _next(self) -> str:
        """Return the next character that is no white space, and go on behind it; at the end the empty string."""
        position = self._behind_space()
        self._position = position + 1
        return self._text[position : position + 1]

    def _behind_space(self) -> int:
        found = _NO_SPACE.search(self._text, self._position)
        return found.start() if found else len(self._text)

    def _expected(self, what: str) -> ValueError:
        return self._error(f"Expecting {what}", self._position - 1)

    def _error(self, message: str, position: int) -> ValueError:
        where = json.JSONDecodeError(message, self._text, position)
        return ValueError(f"not JSON at line {where.lineno}, column {where.colno}: {message}")


def read_text(path: Path, *, from_pipe: bool = False, most_bytes: int = MOST_JSON_BYTES) -> JsonText:
    """Open a JSON file. Raises ValueError, in one line that leaves the path to the caller.

    What is no regular file is refused, since reading it may never end; `from_pipe` reads it all the same.
    """
    return JsonText(_read_bytes(path, from_pipe, most_bytes))


def read_json(path: Path, *, from_pipe: bool = False) -> Any:
    """Read a JSON file as a whole. Raises ValueError, as `read_text` does."""
    text = read_text(path, from_pipe=from_pipe)
    content = text.read_value()
    text.require_end()
    if is_deeper_than(MOST_LEVELS, content):
        raise ValueError("nested too deeply")
    return content


def _read_bytes(path: Path, from_pipe: bool, most_bytes: int) -> bytes:
    try:
        with path.open("rb") if from_pipe else open_regular(path) as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if len(data) > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
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


def _require_once(keys: Sequence[str]) -> None:
    """Raise ValueError if a key comes twice."""
    if len(set(keys)) < len(keys):
        [(twice, _)] = Counter(keys).most_common(1)
        raise ValueError(f"the key {shortened(twice)} appears twice")


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
    # The safetensors library has it so, too, and takes it for no size (serde_json 1.0, `de.rs`, parse_number).
    return int(text) if text != "-0" else -0.0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        _require_once([key for key, _ in pairs])
    return result
