"""Is a pruned checkpoint on disk what its config and its manifest say? Headers only, or every byte."""

import hashlib
from pathlib import Path

from pruning.files.manifest import Manifest
from pruning.files.source import Source, find_checkpoint, read_source
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.writing.byte_copy import Progress, read_tensor

from .errors import CheckpointError
from .state_dict import is_pruned
from .untrusted_files import shortened

_MOST_SHOWN = 200  # characters of a plan


def audit_checkpoint(
    checkpoint: str | Path, *, revision: str | None = None, checksum: bool = True, progress: Progress | None = None
) -> None:
    """Check a pruned checkpoint against its own manifest, without its source, every stored byte included.

    Without `checksum` the tensors' bytes are not read: their headers alone are compared.

    Raises CheckpointError, for the first thing found: a file that is broken, a tensor that is stored though
    pruned, a plan, tensor, dtype, shape or checksum that is not the manifest's, or no manifest with checksums.
    `progress` is called with the number of bytes just read, and the number to read in all.
    """
    source = read_source(find_checkpoint(checkpoint, revision))
    if source.manifest is None:
        raise CheckpointError(f"{source.root} has no {MANIFEST_FILE}: check it against its base instead")
    require_manifest(source)
    _require_code(source.root, source.manifest)
    if not checksum:
        return
    total = sum(tensor.size for tensor in source.tensors())
    for shard, tensor in ((each, tensor) for each in source.shards for tensor in each.tensors):
        expected = source.manifest.kept[tensor.name].sha256
        if expected is None:
            raise CheckpointError(f"{source.root}: {MANIFEST_FILE} has no checksum of {shortened(tensor.name)}")
        digest = hashlib.sha256()
        for part in read_tensor(shard, tensor):
            digest.update(part)
            if progress is not None:
                progress(len(part), total)
        if digest.hexdigest() != expected:
            raise CheckpointError(
                f"{shard.path}: the bytes of {shortened(tensor.name)} have sha256 {digest.hexdigest()}, "
                f"but {MANIFEST_FILE} says {expected}"
            )


def require_manifest(source: Source) -> None:
    """Raise CheckpointError if a checkpoint's manifest, where it has one, does not fit its config and headers."""
    manifest = source.manifest
    if manifest is None:
        return
    path = source.root / MANIFEST_FILE
    if manifest.plan != source.plan:
        said, declared = (str(plan)[:_MOST_SHOWN] for plan in (manifest.plan, source.plan))
        raise CheckpointError(f"{path} says {said}, but config.json says {declared}")
    _require_pruned_by_plan(path, manifest)
    missing = dict(manifest.kept)
    for tensor in source.tensors():
        entry = missing.pop(tensor.name, None)
        if entry is None:
            raise CheckpointError(
                f"{source.root}: {shortened(tensor.name)} is stored, but {MANIFEST_FILE} does not name it"
            )
        if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            raise CheckpointError(
                f"{source.root}: {shortened(tensor.name)} is {tensor.dtype} {shortened(list(tensor.shape))}, "
                f"but {MANIFEST_FILE} says {entry.dtype} {shortened(list(entry.shape))}"
            )
    for name in missing:
        raise CheckpointError(f"{path} says that {shortened(name)} is kept, but it is not stored")


def _require_pruned_by_plan(path: Path, manifest: Manifest) -> None:
    for name in manifest.pruned:
        if not is_pruned(name, manifest.plan):
            raise CheckpointError(f"{path} says that {shortened(name)} is pruned, which its plan does not say")


def _require_code(root: Path, manifest: Manifest) -> None:
    for name, expected in manifest.code.items():
        path = root / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != expected:
            raise CheckpointError(f"{path} has sha256 {found}, but {MANIFEST_FILE} says {expected}")
