"""`pruning.json`: what a pruned checkpoint was made from, so that it can be audited without its source."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from pruning import __version__
from pruning.errors import CheckpointError, PlanError
from pruning.plan import PrunePlan
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.untrusted_files import MOST_LEVELS, JsonText, is_deeper_than, read_text

from .shards import Shape, Tensor, are_counts

FORMAT = 1
# Of a header's 52 bytes at least, a tensor's checksum makes 120 here: this is room for the largest header, and more.
MOST_MANIFEST_BYTES = 400_000_000

# The hub's cache: models--<owner>--<name>/snapshots/<commit> (huggingface_hub 2.4.0, `file_download.py`).
_SHA256 = re.compile("[0-9a-f]{64}")
_OTHER_FORMAT = f"not a manifest of format {FORMAT}"
_NO_CHECKSUM = "one of its checksums is none"
_DTYPE = re.compile("[A-Z0-9_]{1,20}")  # any that there will be; what it is, comes into errors as it stands
_HUB_SNAPSHOT = re.compile(r".*/models--([^/]+)/snapshots/([0-9a-f]{40})")


class Entry(NamedTuple):
    """What a manifest says of a tensor: of a million, as dictionaries they would take several times the memory.

    Kept ones have the `sha256` of their bytes, in hex, unless it was left out; pruned ones have their `bytes`.
    """

    name: str
    dtype: str
    shape: Shape
    sha256: str | None = None
    bytes: Any = None  # of a stranger's manifest it may be anything

    def to_dict(self) -> dict[str, Any]:
        """Return what the file has under its name."""
        return {key: value for key, value in self._asdict().items() if key != "name" and value is not None}


@dataclass(frozen=True)
class Manifest:
    """The content of `pruning.json`.

    `source` describes the first unpruned checkpoint: its `name`, and `revision` if it came from a hub; its `config`, as
    it was; the sha256 of its other `files` that came along, README.md as it was there; also `plan` if it was pruned
    already and had no manifest. `code` maps Python files to their sha256. `kept` has each stored tensor, `pruned` each
    pruned one, in the order of the file.
    """

    source: Mapping[str, Any]
    plan: PrunePlan
    code: Mapping[str, str]
    kept: Sequence[Entry]
    pruned: Sequence[Entry]

    @classmethod
    def read(cls, root: Path) -> "Manifest | None":
        """Read the manifest of a checkpoint directory, None if it has none; raises CheckpointError."""
        path = root / MANIFEST_FILE
        if not path.exists():
            return None
        try:
            return cls(**_read_parts(read_text(path, most_bytes=MOST_MANIFEST_BYTES)))
        except (ValueError, PlanError) as error:
            raise CheckpointError(f"{path}: {error}") from None


def _read_parts(text: JsonText) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name in text.read_keys(otherwise=_OTHER_FORMAT):
        parts[name] = _read_entries(name, text) if name in ("kept", "pruned") else text.read_value()
        if name == "format" and parts[name] != FORMAT:
            raise ValueError(_OTHER_FORMAT)
    text.require_end()
    if "format" not in parts:
        raise ValueError(_OTHER_FORMAT)
    for name, kind in (("source", dict), ("code", dict), ("kept", list), ("pruned", list)):
        if not isinstance(parts.get(name), kind):
            raise ValueError(f"it has no {name!r}")
    source, code, plan = parts["source"], parts["code"], PrunePlan.from_dict(parts.get("plan"))
    if is_deeper_than(MOST_LEVELS, source):
        raise ValueError("nested too deeply")
    if not all(map(_is_checksum, code.values())):
        raise ValueError(_NO_CHECKSUM)
    return {"source": source, "plan": plan, "code": code, "kept": parts["kept"], "pruned": parts["pruned"]}


def _read_entries(part: str, text: JsonText) -> list[Entry]:
    entries = []
    shapes: dict[Shape, Shape] = {}
    for name in text.read_keys(otherwise=f"it has no {part!r}"):
        entry = text.read_value()
        if not _describes_a_tensor(entry):
            raise ValueError(f"{part!r} should map tensors to their dtype and shape")
        checksum = entry.get("sha256")
        if not _is_checksum(checksum):
            raise ValueError(_NO_CHECKSUM)
        shape = tuple(entry["shape"])
        entries.append(
            Entry(name, sys.intern(entry["dtype"]), shapes.setdefault(shape, shape), checksum, entry.get("bytes"))
        )
    return entries


def _describes_a_tensor(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(dtype := entry.get("dtype"), str)
        and _DTYPE.fullmatch(dtype) is not None
        and are_counts(entry.get("shape"))
        # Nothing nested, however deeply: it may come into another manifest.
        and not isinstance(entry.get("bytes"), (list, dict))
    )


def _is_checksum(text: Any) -> bool:
    """Say whether it is the sha256 of something, in hex, or None."""
    return text is None or (isinstance(text, str) and _SHA256.fullmatch(text) is not None)


def manifest_lines(
    *,
    source: Mapping[str, Any],
    plan: PrunePlan,
    code: Mapping[str, str],
    kept: Iterable[Entry],
    pruned: Iterable[Entry],
) -> Iterator[str]:
    """Yield the file of a `Manifest` line by line, one a tensor: readable, and never in memory as a whole."""
    head = {
        "format": FORMAT,
        "tool": {"name": "prunecheck", "version": __version__},
        "source": source,
        "plan": plan.to_dict(),
        "code": code,
    }
    yield "{\n"
    for name, value in head.items():
        yield f"  {json.dumps(name)}: {json.dumps(value)},\n"
    yield from _section("kept", kept)
    yield ",\n"
    yield from _section("pruned", pruned)
    yield "\n}\n"


def _section(name: str, entries: Iterable[Entry]) -> Iterator[str]:
    yield f"  {json.dumps(name)}: {{"
    separator, end = "\n", "}"
    for entry in entries:
        yield f"{separator}    {json.dumps(entry.name)}: {json.dumps(entry.to_dict())}"
        separator, end = ",\n", "\n  }"
    yield end


def source_identity(root: Path) -> dict[str, Any]:
    """Return the name of an unpruned checkpoint: its directory's, or hub id and revision if the hub's cache has it."""
    root = root.resolve()
    snapshot = _HUB_SNAPSHOT.fullmatch(root.as_posix())
    if snapshot:
        return {"name": snapshot[1].replace("--", "/"), "revision": snapshot[2]}
    return {"name": root.name}


def described(tensors: Iterable[Tensor], entries: Sequence[Entry]) -> Iterator[tuple[Tensor, Entry | None]]:
    """Yield each tensor with the entry of its name, None where there is none.

    Both are walked side by side for as long as they come in one order, as `prune_checkpoint` writes them, whatever
    entries there are in between: the dictionary of a million names would lie beyond the processor's caches.
    """
    rest = iter(entries)
    by_name: dict[str, Entry] | None = None
    for tensor in tensors:
        if by_name is None:
            for entry in rest:
                if entry.name == tensor.name:
                    yield tensor, entry
                    break
            else:
                by_name = {entry.name: entry for entry in entries}
        if by_name is not None:
            yield tensor, by_name.get(tensor.name)


def kept_entries(tensors: Iterable[tuple[Tensor, str | None]]) -> Iterator[Entry]:
    """Yield what the manifest says of the stored tensors, each with the sha256 of its bytes, in hex, or None."""
    for tensor, checksum in tensors:
        yield Entry(tensor.name, tensor.dtype, tensor.shape, sha256=checksum)


def pruned_entries(tensors: Iterable[Tensor], before: Iterable[Entry]) -> list[Entry]:
    """Return what the manifest says of the pruned tensors, those that were pruned `before` included, by name."""
    pruned = {entry.name: entry for entry in before}
    for tensor in tensors:
        pruned[tensor.name] = Entry(tensor.name, tensor.dtype, tensor.shape, bytes=tensor.size)
    return sorted(pruned.values(), key=attrgetter("name"))


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the sha256, in hex, of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
