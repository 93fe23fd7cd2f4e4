"""Read JSON that strangers wrote: one clear error for whatever is wrong with it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

# The format's own limit for a safetensors header (safetensors 0.8.0, `tensor.rs`, MAX_HEADER_SIZE) serves all files.
MOST_JSON_BYTES = 100_000_000


def parse_json(data: bytes) -> Any:
    """Parse JSON. Raises ValueError, in one line, if it is malformed, not UTF-8, or names a key twice."""
    try:
        text = data.decode("utf-8")
        del data  # a large file need not be in memory twice while it is parsed
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError, in one line that leaves the path to the caller."""
    return parse_json(_read_bytes(path))


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"larger than {MOST_JSON_BYTES} bytes")
    return data


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} appears twice")
    return result
