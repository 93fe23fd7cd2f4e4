"""`pruning.json`: what a pruned checkpoint was made from, so that it can be audited without its source."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pruning import __version__
from pruning.errors import CheckpointError, PlanError
from pruning.plan import PrunePlan
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.untrusted_files import read_json

from .shards import Shape, Tensor

FORMAT = 1

_SHA256 = re.compile("[0-9a-f]{64}")
_DTYPE = re.compile("[A-Z0-9_]{1,20}")  # any that there will be; what it is, comes into errors as it stands
# The hub's cache: models--<owner>--<name>/snapshots/<commit> (huggingface_hub 2.4.0, `file_download.py`).
_HUB_SNAPSHOT = re.compile(r".*/models--([^/]+)/snapshots/([0-9a-f]{40})")


class Entry(NamedTuple):
    """What a manifest says of a tensor.

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
    already and had no manifest. `code` maps Python files to their sha256. `kept` has each stored tensor by its name,
    `pruned` each pruned one, in the order of the file.
    """

    source: Mapping[str, Any]
    plan: PrunePlan
    code: Mapping[str, str]
    kept: Mapping[str, Entry]
    pruned: Mapping[str, Entry]

    @classmethod
    def read(cls, root: Path) -> "Manifest | None":
        """Read the manifest of a checkpoint directory, None if it has none; raises CheckpointError."""
        path = root / MANIFEST_FILE
        if not path.exists():
            return None
        try:
            return cls(**_read_parts(read_json(path)))
        except (ValueError, PlanError) as error:
            raise CheckpointError(f"{path}: {error}") from None


def _read_parts(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not a manifest of format {FORMAT}")
    for name in ("source", "code", "kept", "pruned"):
        if not isinstance(content.get(name), dict):
            raise ValueError(f"it has no {name!r}")
    if not all(map(_is_checksum, content["code"].values())):
        raise ValueError("one of its checksums is none")
    return {
        "source": content["source"],
        "plan": PrunePlan.from_dict(content.get("plan")),
        "code": content["code"],
        "kept": {name: _read_entry("kept", name, entry) for name, entry in content["kept"].items()},
        "pruned": {name: _read_entry("pruned", name, entry) for name, entry in content["pruned"].items()},
    }


def _read_entry(part: str, name: str, entry: Any) -> Entry:
    if not _describes_a_tensor(entry):
        raise ValueError(f"{part!r} should map tensors to their dtype and shape")
    if not _is_checksum(entry.get("sha256")):
        raise ValueError("one of its checksums is none")
    return Entry(name, entry["dtype"], tuple(entry["shape"]), entry.get("sha256"), entry.get("bytes"))


def _describes_a_tensor(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(dtype := entry.get("dtype"), str)
        and _DTYPE.fullmatch(dtype) is not None
        and isinstance(shape := entry.get("shape"), list)
        and all(type(size) is int and size >= 0 for size in shape)  # by type: True is an int, too, to isinstance
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
    """Yield the file of a `Manifest` line by line, one a tensor, so that it can be read."""
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


def kept_entries(tensors: Iterable[Tensor], digests: Mapping[str, str]) -> Iterator[Entry]:
    """Yield what the manifest says of the stored tensors, with the sha256 of their bytes, in hex, where it is known."""
    for tensor in tensors:
        yield Entry(tensor.name, tensor.dtype, tensor.shape, sha256=digests.get(tensor.name))


def pruned_entries(tensors: Iterable[Tensor], before: Mapping[str, Entry]) -> list[Entry]:
    """Return what the manifest says of the pruned tensors, those that were pruned `before` included, by name."""
    now = {tensor.name: Entry(tensor.name, tensor.dtype, tensor.shape, bytes=tensor.size) for tensor in tensors}
    return [entry for _, entry in sorted({**before, **now}.items())]


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the sha256, in hex, of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
