"""From a checkpoint and a plan to a pruned checkpoint: decide everything, then stream byte ranges."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning.files.manifest import (
    Manifest,
    checksums,
    kept_entries,
    manifest_lines,
    pruned_entries,
    source_identity,
)
from pruning.files.model_card import CARD_FILE, HEAD_BYTES, card_rewriter
from pruning.files.shards import INDEX_FILE, Tensor, shard_names
from pruning.files.source import CONFIG_FILE, Source, find_checkpoint, read_source, require_prunable
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.writing.byte_copy import NewShard, Progress, write_shards
from pruning.writing.small_files import write_lines
from pruning.writing.staging import require_replaceable, staged_directory, sync_path

from .audit import require_manifest
from .errors import CheckpointError, DestinationError
from .plan import PrunePlan
from .state_dict import is_pruned
from .untrusted_files import shortened


@dataclass(frozen=True)
class PruneResult:
    """What `prune_checkpoint` did; bytes are those of tensors, and `plan` is all that is pruned in the result."""

    destination: Path
    plan: PrunePlan
    bytes_before: int
    bytes_after: int
    tensors_kept: int
    tensors_pruned: int
    shards: int
    left_behind: tuple[str, ...]


def prune_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    plan: PrunePlan,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    checksum: bool = True,
    sync: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Write the checkpoint `source` without the sub-layers of `plan` to the directory `destination`.

    `source` is a directory or a hub id (then `revision` may name a commit); it may be pruned already, and then
    both plans apply. Each kept tensor is the source's byte for byte. `destination` is complete or absent, whatever
    happens; `overwrite` replaces an existing directory once the new one is complete. Without `checksum` the
    manifest has no sha256, without `sync` the bytes may still be on their way to the disk at the return. With `dry_run`
    everything is decided and nothing is written: the result says what would be.
    `progress` is called with the number of bytes just written, and the number to write in all.

    No model is built, torch is not imported, and memory does not grow with the bytes.

    Raises PlanError, CheckpointError or DestinationError, each with one line for a person.
    """
    root = find_checkpoint(source if isinstance(source, str) else Path(source), revision)
    try:
        target = Path(destination).expanduser()
    except RuntimeError as error:
        raise DestinationError(f"{destination} is not a name for a new directory: {error}") from None
    read = read_source(root)
    _require_apart(read, target)
    require_prunable(read)
    require_manifest(read)
    dropped = read.tensors_under(plan)
    whole_plan = plan | read.plan
    shards = _new_shards(read, whole_plan)
    total = _stored_bytes(shards)

    def advance(count: int) -> None:
        if progress is not None:
            progress(count, total)

    try:
        if dry_run:
            require_replaceable(target, overwrite)
        else:
            with staged_directory(target, overwrite=overwrite, sync=sync) as staging:
                digests = write_shards(staging, shards, checksum=checksum, sync=sync, advance=advance)
                _write_small_files(staging, read, whole_plan, shards, digests, dropped, sync)
    except OSError as error:
        raise DestinationError(_cannot_write(target, shards, error)) from None
    return PruneResult(
        destination=target,
        plan=whole_plan,
        bytes_before=sum(tensor.size for tensor in read.tensors()),
        bytes_after=total,
        tensors_kept=sum(len(shard.tensors) for shard in shards),
        tensors_pruned=len(dropped),
        shards=len(shards),
        left_behind=read.left_behind,
    )


def _require_apart(source: Source, destination: Path) -> None:
    if not str(destination).isprintable():
        raise DestinationError(f"{str(destination)!r} is not a name for a new directory: name one that can be printed")
    inner, outer = _real(destination), _real(source.root)
    if inner == outer:
        raise DestinationError(f"{destination} is the source itself: name another directory")
    if inner.is_relative_to(outer):
        raise DestinationError(f"{destination} lies inside the source {source.root}: name a directory outside it")
    if outer.is_relative_to(inner):
        raise DestinationError(f"{destination} holds the source {source.root}: name a directory beside it")
    for file in source.files():
        if _real(file).is_relative_to(inner):
            raise DestinationError(f"{destination} holds what {file} links to: name a directory beside it")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, no error for a link to itself


def _new_shards(source: Source, plan: PrunePlan) -> tuple[NewShard, ...]:
    """Return the shards to write, without those that the plan empties.

    If it empties all, one without tensors stays, and without the metadata of its source, since which one that was
    would depend on the order of pruning.
    """
    kept = [
        (shard, tuple(tensor for tensor in shard.tensors if not is_pruned(tensor.name, plan)))
        for shard in source.shards
    ]
    kept = [(shard, tensors) for shard, tensors in kept if tensors] or [(replace(source.shards[0], metadata=None), ())]
    names = shard_names(len(kept))
    return tuple(NewShard(name, shard, tensors) for name, (shard, tensors) in zip(names, kept, strict=True))


def _write_small_files(
    staging: Path,
    source: Source,
    plan: PrunePlan,
    shards: Sequence[NewShard],
    digests: Mapping[str, str],
    dropped: Sequence[Tensor],
    sync: bool,
) -> None:
    if len(shards) > 1:
        write_lines(staging / INDEX_FILE, [_index(shards)], sync)
    code = source.family.code_files()
    for name, content in code.items():
        write_lines(staging / name, [content.decode()], sync)
    card = card_rewriter(source, plan, _stored_bytes(shards))
    files = {
        name: _copy_companion(source.root / name, staging / name, sync, card if name == CARD_FILE else None)
        for name in source.companions
    }
    if CARD_FILE not in files:
        write_lines(staging / CARD_FILE, [card(b"").decode()], sync)
    before = source.manifest
    if before:
        _require_checksums(source.root, before, digests)
    manifest = manifest_lines(
        source=before.source if before else _source_of(source, files),
        plan=plan,
        code=checksums(code),
        kept=kept_entries((tensor for shard in shards for tensor in shard.tensors), digests),
        pruned=pruned_entries(dropped, before.pruned if before else {}),
    )
    write_lines(staging / MANIFEST_FILE, manifest, sync)
    # Last, so that no half-written directory loads.
    write_lines(staging / CONFIG_FILE, [_pruned_config(source, plan)], sync)


def _source_of(source: Source, files: dict[str, str]) -> dict[str, Any]:
    identity = source_identity(source.root) | {"config": source.config, "files": files}
    if not source.plan.is_empty:  # pruned already, and nothing says from what
        identity["plan"] = source.plan.to_dict()
    return identity


def _require_checksums(root: Path, manifest: Manifest, digests: Mapping[str, str]) -> None:
    """Raise CheckpointError if the bytes of a pruned source are not those of its own manifest."""
    for name, found in digests.items():
        expected = manifest.kept[name].sha256
        if expected not in (None, found):
            raise CheckpointError(
                f"{root}: the bytes of {shortened(name)} have sha256 {found}, but {MANIFEST_FILE} says {expected}"
            )


def _index(shards: Sequence[NewShard]) -> str:
    weight_map = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    metadata = {
        "total_parameters": sum(tensor.elements for shard in shards for tensor in shard.tensors),
        "total_size": _stored_bytes(shards),
    }
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}, indent=2) + "\n"


def _stored_bytes(shards: Sequence[NewShard]) -> int:
    return sum(tensor.size for shard in shards for tensor in shard.tensors)


def _pruned_config(source: Source, plan: PrunePlan) -> str:
    family = source.family
    config = dict(source.config)
    config["model_type"] = family.pruned_model_type
    config["architectures"] = [family.pruned_architecture]
    config["auto_map"] = family.auto_map
    per_layer_config = plan.to_per_layer_config(config.pop("per_layer_config", None))
    if per_layer_config:
        config["per_layer_config"] = per_layer_config
    return json.dumps(dict(sorted(config.items())), indent=2) + "\n"


def _copy_companion(source: Path, destination: Path, sync: bool, rewrite: Callable[[bytes], bytes] | None) -> str:
    """Copy a file, its first HEAD_BYTES by `rewrite` where there is one; returns the sha256 of the source's bytes."""
    destination.parent.mkdir(exist_ok=True)
    try:
        reader = source.open("rb")
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256()
    with reader, destination.open("xb") as writer:
        part = reader.read(HEAD_BYTES)
        digest.update(part)
        writer.write(rewrite(part) if rewrite else part)
        while part := reader.read(HEAD_BYTES):
            digest.update(part)
            writer.write(part)
        writer.flush()
        if sync:
            os.fsync(writer.fileno())
    if sync:
        sync_path(destination.parent)
    return digest.hexdigest()


def _cannot_write(destination: Path, shards: Sequence[NewShard], error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = _stored_bytes(shards)
        return f"{destination} needs {needed} bytes, for which no space is left: free some, or name another device"
    return f"{destination} cannot be written: {error.strerror or error}"
