"""What a checkpoint directory stores, read by the safetensors library alone: independent of how `pruning` reads.

Nothing here raises for a broken checkpoint: what is wrong is collected, so that all of it can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from harness.errors import CannotRun
from harness.report.outcomes import FoundFault

from .untrusted_files import checkpoint_directory, read_json, require_readable, require_usable

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# What may lie beside a model's weights and is none of them: what peft saves, and weights in another library's form.
_NO_WEIGHTS = ("adapter_model.safetensors", "consolidated.safetensors")
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_GIT_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor:
    """One stored tensor: the `file` that holds it, its `key` there, `dtype` in safetensors' words, `shape`."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> torch.Tensor:
        """Return its values, of its own dtype, on the CPU."""
        with safe_open(self.file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self.key)
        return tensor


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint directory: its `config` (None without config.json), and its tensors by canonical key.

    `tensors` are those that transformers would load, which are those of `model.safetensors` if it is there, else of
    the files that the index names (transformers 4.57.6 and 5.23.0, `modeling_utils.py`). `faults` are what is wrong
    with the files themselves, `index` the index's weight map.
    """

    root: Path
    config: Mapping[str, Any] | None
    tensors: Mapping[str, StoredTensor]
    index: Mapping[str, str] | None
    files: tuple[Path, ...]
    faults: tuple[FoundFault, ...]

    @property
    def bytes(self) -> int:
        """The bytes of the files that would be loaded."""
        return sum(path.stat().st_size for path in self.files if path.is_file())


def canonical_key(key: str) -> str:
    """Return a key as causal language models have it: transformers also loads keys without the prefix `model.`."""
    return key if key.startswith(("model.", "lm_head.")) else f"model.{key}"


def tensors_file_by_file(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield canonical key and values of the tensors, each file opened once."""
    by_file: dict[Path, list[tuple[str, StoredTensor]]] = {}
    for key, tensor in tensors.items():
        by_file.setdefault(tensor.file, []).append((key, tensor))
    for path, items in by_file.items():
        with safe_open(path, framework="pt") as file:
            for key, tensor in items:
                yield key, file.get_tensor(tensor.key)


def read_stored(checkpoint: str | Path) -> StoredCheckpoint:
    """Read what a checkpoint directory stores, headers only.

    Raises CannotRun if it is no directory, holds nothing that could be a checkpoint, or what has no end to read to.
    """
    root = checkpoint_directory(checkpoint)
    require_readable(root)
    faults: list[FoundFault] = []
    config = _read_json(root / CONFIG_FILE, faults, "config")
    single = root / SINGLE_FILE
    weight_map = _weight_map(root, faults)
    lone = _weight_files(root)
    if single.is_file():
        files = [single]
        others = [path for path in lone if path != single]
        if weight_map is not None and SINGLE_FILE not in weight_map.values() and others:
            faults.append(_stale_single_file(root, others))
    elif weight_map is not None:  # empty if the index is broken, which is said then
        files = [root / name for name in sorted(set(weight_map.values()))]
    else:
        # transformers wants the one name; a state dict that was saved by other means may have any.
        files = lone if config is None else []
        if config is not None:
            faults.append(_no_weights(root))
    if config is None and not files and not faults:
        raise CannotRun(f"{root} holds neither config.json nor safetensors: it is no checkpoint")
    tensors: dict[str, StoredTensor] = {}
    twice: list[tuple[StoredTensor, StoredTensor]] = []
    for path in files:
        for tensor in _read_file(path, faults):
            before = tensors.setdefault(canonical_key(tensor.key), tensor)
            if before is not tensor:
                twice.append((before, tensor))
                if (weight_map or {}).get(tensor.key) == path.name:
                    tensors[canonical_key(tensor.key)] = tensor
    if twice:
        faults.append(_stored_twice(twice))
    if weight_map and not single.is_file():
        faults.extend(_index_faults(root, weight_map, tensors))
    return StoredCheckpoint(
        root=root,
        config=config if isinstance(config, dict) else None,
        tensors=tensors,
        index=weight_map,
        files=tuple(files),
        faults=tuple(faults),
    )


def _weight_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.safetensors") if path.name not in _NO_WEIGHTS)


def unloaded_files(stored: StoredCheckpoint) -> dict[Path, set[str]]:
    """Return the files of weights in the directory that would not be loaded, each with the canonical keys it holds."""
    return {
        path: {canonical_key(tensor.key) for tensor in _read_file(path, [])}
        for path in _weight_files(stored.root)
        if path not in stored.files
    }


def _read_json(path: Path, faults: list[FoundFault], family: str) -> Any:
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        require_usable(content)
    except ValueError as error:
        faults.append(
            FoundFault(
                family=family,
                id=f"{path.name}-unreadable",
                cause=f"{path.name} cannot be read: {error}",
                evidence=(str(path),),
                remedy=f"Fetch {path.name} again, or restore it from the base.",
            )
        )
        return {}
    return content


def _weight_map(root: Path, faults: list[FoundFault]) -> dict[str, str] | None:
    content = _read_json(root / INDEX_FILE, faults, "files")
    if content is None:
        return None
    weight_map = content.get("weight_map")
    well_formed = isinstance(weight_map, dict) and all(
        isinstance(name, str) and _is_file_name(name) and name.endswith(".safetensors") for name in weight_map.values()
    )
    if well_formed:
        return dict(weight_map)
    faults.append(
        FoundFault(
            family="files",
            id="index-broken",
            cause=f"{INDEX_FILE} has no weight_map of keys to safetensors files in the directory",
            evidence=(f"weight_map={str(weight_map)[:100]}",),
            remedy="Rebuild the index from the shards' headers.",
        )
    )
    return {}


def _is_file_name(name: str) -> bool:
    return len(name) <= 255 and name == Path(name).name and name.isprintable()


def _read_file(path: Path, faults: list[FoundFault]) -> list[StoredTensor]:
    problem = None
    if not path.is_file():
        problem = ("shard-missing", f"{path.name}, which {INDEX_FILE} names, is not there")
    else:
        try:
            with path.open("rb") as raw:
                if raw.read(len(_GIT_LFS_POINTER)) == _GIT_LFS_POINTER:
                    problem = ("git-lfs-pointer", f"{path.name} is a Git LFS pointer, not the file itself")
            if problem is None:
                with safe_open(path, framework="pt") as file:
                    slices = ((key, file.get_slice(key)) for key in file.keys())  # noqa: SIM118  # no dict
                    return [StoredTensor(path, key, part.get_dtype(), tuple(part.get_shape())) for key, part in slices]
        except (SafetensorError, OSError) as error:
            problem = ("truncated-file", f"{path.name} is no complete safetensors file: {error}")
    assert problem is not None
    faults.append(
        FoundFault(
            family="files",
            id=problem[0],
            cause=problem[1],
            evidence=(f"{path.name}: {path.stat().st_size if path.is_file() else 0} bytes",),
            remedy=f"Fetch {path.name} again (with Git LFS: 'git lfs pull'), or prune the base again.",
        )
    )
    return []


def _index_faults(root: Path, weight_map: dict[str, str], tensors: dict[str, StoredTensor]) -> Iterator[FoundFault]:
    indexed = {canonical_key(key): name for key, name in weight_map.items()}
    stored = {key: tensor.file.name for key, tensor in tensors.items()}
    if unnamed := sorted(set(stored) - set(indexed)):
        yield not_in_index(unnamed, {stored[key] for key in unnamed})
    # A file that could not be read has its own fault already.
    readable = {tensor.file.name for tensor in tensors.values()}
    elsewhere = sorted(
        key for key, name in indexed.items() if key in stored and stored[key] != name and name in readable
    )
    nowhere = sorted(key for key, name in indexed.items() if key not in stored and name in readable)
    if elsewhere:
        yield FoundFault(
            family="offload",
            id="swapped-weight-map",
            cause=f"{INDEX_FILE} puts {len(elsewhere)} tensor(s) in the wrong shard, first {elsewhere[0]}",
            evidence=(f"indexed in {indexed[elsewhere[0]]}, stored in {stored[elsewhere[0]]}",),
            remedy="Rebuild the index from the shards' headers: disk offload reads each tensor where the index says.",
        )
    if nowhere:
        yield FoundFault(
            family="files",
            id="indexed-but-not-stored",
            cause=f"{INDEX_FILE} names {len(nowhere)} tensor(s) that no shard holds, first {nowhere[0]}",
            evidence=(f"indexed in {indexed[nowhere[0]]}",),
            remedy="Rebuild the index from the shards' headers; if the tensors should be there, prune the base again.",
        )


def not_in_index(keys: list[str], shards: set[str]) -> FoundFault:
    """Return the fault of tensors that lie in `shards`, and that the index does not name."""
    return FoundFault(
        family="files",
        id="shard-not-in-index",
        cause=f"{INDEX_FILE} does not name {len(keys)} stored tensor(s), first {keys[0]}",
        evidence=(f"stored in {', '.join(sorted(shards))}", "transformers initialises them at random"),
        remedy="Rebuild the index from the shards' headers.",
    )


def _stored_twice(twice: list[tuple[StoredTensor, StoredTensor]]) -> FoundFault:
    first, second = twice[0]
    equal = (first.dtype, first.shape) == (second.dtype, second.shape) and torch.equal(first.read(), second.read())
    return FoundFault(
        family="files",
        id="stored-twice",
        cause=f"{len(twice)} tensor(s) are stored twice, first {first.key}",
        evidence=(
            f"in {first.file.name} and in {second.file.name}, " + ("with equal values" if equal else "and they differ"),
        ),
        remedy="Remove whichever is stale: which of the two is loaded depends on the order of the files.",
    )


def _stale_single_file(root: Path, others: list[Path]) -> FoundFault:
    return FoundFault(
        family="files",
        id="stale-single-file",
        cause=f"{SINGLE_FILE} lies beside {len(others)} indexed shard(s), and transformers loads the first alone",
        evidence=(f"{INDEX_FILE} names other files: {others[0].name} ...",),
        remedy=f"Remove whichever is stale, most likely {SINGLE_FILE}.",
    )


def _no_weights(root: Path) -> FoundFault:
    return FoundFault(
        family="files",
        id="no-weights",
        cause=f"there is neither {SINGLE_FILE} nor {INDEX_FILE}",
        evidence=(f"files there: {', '.join(sorted(path.name for path in root.iterdir()))[:200]}",),
        remedy="Save the weights as safetensors; pickled weights are never opened here.",
    )
