"""`pruning.json`: what a pruned checkpoint was made from, so that it can be audited without its source."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .errors import CheckpointError, PlanError
from .json_files import read_json
from .plan import PrunePlan
from .remote.per_layer_skip import MANIFEST_FILE
from .shards import Tensor

FORMAT = 1

Entries = Iterable[tuple[str, Mapping[str, Any]]]

# The hub's cache: models--<owner>--<name>/snapshots/<commit> (huggingface_hub 2.4.0, `file_download.py`).
_SHA256 = re.compile("[0-9a-f]{64}")
_DTYPE = re.compile("[A-Z0-9_]{1,20}")  # any that there will be; what it is, comes into errors as it stands
_HUB_SNAPSHOT = re.compile(r".*/models--([^/]+)/snapshots/([0-9a-f]{40})")


@dataclass(frozen=True)
class Manifest:
    """The content of `pruning.json`.

    `source` describes the first unpruned checkpoint: its `name`, and `revision` if it came from a hub; its `config`, as
    it was; the sha256 of its other `files` that came along, README.md as it was there; also `plan` if it was pruned
    already and had no manifest. `code` maps Python files to their sha256. `kept` maps each stored tensor to its
    `dtype`, `shape` and, unless left out, `sha256`; `pruned` maps each pruned one to `dtype`, `shape` and `bytes`.
    """

    source: Mapping[str, Any]
    plan: PrunePlan
    code: Mapping[str, str]
    kept: Mapping[str, Mapping[str, Any]]
    pruned: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, root: Path) -> "Manifest | None":
        """Read the manifest of a checkpoint directory, None if it has none; raises CheckpointError."""
        path = root / MANIFEST_FILE
        if not path.exists():
            return None
        try:
            content = read_json(path)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(f"not a manifest of format {FORMAT}")
            parts: dict[str, Any] = {name: content.get(name) for name in ("source", "code", "kept", "pruned")}
            for name, part in parts.items():
                if not isinstance(part, dict):
                    raise ValueError(f"it has no {name!r}")
            for name in ("kept", "pruned"):
                if not all(map(_describes_a_tensor, parts[name].values())):
                    raise ValueError(f"{name!r} should map tensors to their dtype and shape")
            checksums = [*parts["code"].values(), *(entry.get("sha256") for entry in parts["kept"].values())]
            if not all(each is None or (isinstance(each, str) and _SHA256.fullmatch(each)) for each in checksums):
                raise ValueError("one of its checksums is none")
            return cls(plan=PrunePlan.from_dict(content.get("plan")), **parts)
        except (ValueError, PlanError) as error:
            raise CheckpointError(f"{path}: {error}") from None


def _describes_a_tensor(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(dtype := entry.get("dtype"), str)
        and _DTYPE.fullmatch(dtype) is not None
        and isinstance(entry.get("shape"), list)
    )


def manifest_lines(
    *, source: Mapping[str, Any], plan: PrunePlan, code: Mapping[str, str], kept: Entries, pruned: Entries
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


def _section(name: str, entries: Entries) -> Iterator[str]:
    yield f"  {json.dumps(name)}: {{"
    separator, end = "\n", "}"
    for key, entry in entries:
        yield f"{separator}    {json.dumps(key)}: {json.dumps(entry)}"
        separator, end = ",\n", "\n  }"
    yield end


def source_identity(root: Path) -> dict[str, Any]:
    """Return the name of an unpruned checkpoint: its directory's, or hub id and revision if the hub's cache has it."""
    root = root.resolve()
    snapshot = _HUB_SNAPSHOT.fullmatch(root.as_posix())
    if snapshot:
        return {"name": snapshot[1].replace("--", "/"), "revision": snapshot[2]}
    return {"name": root.name}


def kept_entries(tensors: Iterable[tuple[Tensor, str | None]]) -> Entries:
    """Yield what the manifest says of the stored tensors, each with the sha256 of its bytes, in hex, or None."""
    for tensor, checksum in tensors:
        entry: dict[str, Any] = {"dtype": tensor.dtype, "shape": tensor.shape}
        if checksum is not None:
            entry["sha256"] = checksum
        yield tensor.name, entry


def pruned_entries(tensors: Iterable[Tensor], before: Mapping[str, Mapping[str, Any]]) -> Entries:
    """Yield what the manifest says of the pruned tensors, those that were pruned `before` included, by name."""
    pruned = {tensor.name: tensor for tensor in tensors}
    for name in sorted({*pruned, *before}):
        tensor = pruned.get(name)
        if tensor is None:
            yield name, before[name]
        else:
            yield name, {"dtype": tensor.dtype, "shape": tensor.shape, "bytes": tensor.size}


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the sha256, in hex, of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
