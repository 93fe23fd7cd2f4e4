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

# The hub's cache: models--<owner>--<name>/snapshots/<commit> (huggingface_hub 2.4.0, `file_download.py`).
_HUB_SNAPSHOT = re.compile(r".*/models--([^/]+)/snapshots/([0-9a-f]{40})")


@dataclass(frozen=True)
class Manifest:
    """The content of `pruning.json`.

    `source` names the first unpruned checkpoint (`name`, and `revision` if it came from a hub; also `plan` if it
    was pruned already and had no manifest). `code` maps Python files to their sha256. `kept` maps each stored
    tensor to its `dtype`, `shape` and, unless left out, `sha256`; `pruned` maps each pruned one to `dtype`,
    `shape` and `bytes`.
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
                if not all(isinstance(entry, dict) for entry in parts[name].values()):
                    raise ValueError(f"{name!r} should map tensors to their dtype and shape")
            return cls(plan=PrunePlan.from_dict(content.get("plan")), **parts)
        except (ValueError, PlanError) as error:
            raise CheckpointError(f"{path}: {error}") from None

    def lines(self) -> Iterator[str]:
        """Yield the file line by line, one a tensor: readable, and never in memory as a whole."""
        head = {
            "format": FORMAT,
            "tool": {"name": "prunecheck", "version": __version__},
            "source": self.source,
            "plan": self.plan.to_dict(),
            "code": self.code,
        }
        yield "{\n"
        for name, value in head.items():
            yield f"  {json.dumps(name)}: {json.dumps(value)},\n"
        yield from _section("kept", self.kept)
        yield ",\n"
        yield from _section("pruned", self.pruned)
        yield "\n}\n"


def _section(name: str, entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"  {json.dumps(name)}: {{"
    separator = "\n"
    for key, entry in entries.items():
        yield f"{separator}    {json.dumps(key)}: {json.dumps(entry)}"
        separator = ",\n"
    yield "\n  }" if entries else "}"


def source_identity(root: Path) -> dict[str, Any]:
    """Return the name of an unpruned checkpoint: its directory's, or hub id and revision if the hub's cache has it."""
    root = root.resolve()
    snapshot = _HUB_SNAPSHOT.fullmatch(root.as_posix())
    if snapshot:
        return {"name": snapshot[1].replace("--", "/"), "revision": snapshot[2]}
    return {"name": root.name}


def kept_entry(tensor: Tensor, checksum: str | None) -> dict[str, Any]:
    """Return what the manifest says of a stored tensor; `checksum` is the sha256 of its bytes, in hex."""
    entry: dict[str, Any] = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    if checksum is not None:
        entry["sha256"] = checksum
    return entry


def pruned_entries(tensors: Iterable[Tensor], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of the pruned tensors, those that were pruned `before` included, by name."""
    entries = dict(before)
    for tensor in tensors:
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "bytes": tensor.size}
    return dict(sorted(entries.items()))


def code_checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the sha256, in hex, of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
