"""Which shards the weights of a checkpoint lie in: those that its index names, or a single file."""

from pathlib import Path

from pruning.errors import CheckpointError
from pruning.regular_files import is_file
from pruning.untrusted_files import read_json, shortened

from .shards import INDEX_FILE, SINGLE_FILE, Shard, read_shard

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_shards(root: Path) -> tuple[Shard, ...]:
    """Read the headers of a checkpoint directory, in the order of the shards' names.

    Raises CheckpointError if there are none, if one is broken, or if the index is, or does not say what they do.
    """
    index, single = root / INDEX_FILE, root / SINGLE_FILE
    if not is_file(index):
        if not is_file(single):
            raise CheckpointError(_no_weights(root))
        return (read_shard(single),)
    weight_map = _read_weight_map(index)
    names = sorted(set(weight_map.values()))
    if is_file(single) and SINGLE_FILE not in names:
        raise CheckpointError(
            f"{root} has both {SINGLE_FILE} and {INDEX_FILE}, of which transformers loads the first: "
            "remove the stale one"
        )
    for name in names:
        if not is_file(root / name):
            raise CheckpointError(f"{index} names {name}, which is not there: fetch it again")
    shards = tuple(read_shard(root / name) for name in names)
    _require_index_agrees(index, weight_map, shards)
    return shards


def _read_weight_map(index: Path) -> dict[str, str]:
    """Return the shard that an index names for each key."""
    try:
        content = read_json(index)
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("it has no weight_map")
        for key, name in weight_map.items():
            if not isinstance(name, str) or not _is_shard_name(name):
                raise ValueError(
                    f"the shard of {shortened(key)} is {shortened(name)}, "
                    f"but should be a file name such as {SINGLE_FILE}"
                )
    except ValueError as error:
        raise CheckpointError(f"{index}: {error}") from None
    return weight_map


def _require_index_agrees(index: Path, weight_map: dict[str, str], shards: tuple[Shard, ...]) -> None:
    """Raise CheckpointError if a tensor is stored twice, or elsewhere than the index says, or not at all."""
    missing = dict(weight_map)
    for shard in shards:
        name = shard.path.name
        for tensor in shard.tensors:
            named = weight_map.get(tensor.name)
            if named != name:
                raise CheckpointError(_disagreement(index, tensor.name, named, shard, shards))
            del missing[tensor.name]
    for key, name in missing.items():
        raise CheckpointError(f"{index} puts {shortened(key)} in {name}, which does not hold it")


def _disagreement(index: Path, key: str, named: str | None, shard: Shard, shards: tuple[Shard, ...]) -> str:
    """Say what is wrong about a tensor of a shard that the index has elsewhere, or does not name."""
    holders = [other.path.name for other in shards if any(tensor.name == key for tensor in other.tensors)]
    if len(holders) > 1:
        return f"{index.parent}: {shortened(key)} is stored twice, also in {holders[0]}"
    if named is None:
        return f"{index} does not name {shortened(key)}, which {shard.path.name} holds"
    return f"{index} puts {shortened(key)} in {named}, which does not hold it"


def _no_weights(root: Path) -> str:
    pickled = sorted(path.name for pattern in _PICKLED for path in root.glob(pattern))
    if pickled:
        return (
            f"{root} has only pickled weights ({pickled[0]}), which are never opened: "
            "save it as safetensors first, with save_pretrained of transformers"
        )
    return f"{root} has no {SINGLE_FILE} and no {INDEX_FILE}"


def _is_shard_name(name: str) -> bool:
    return len(name) <= 255 and name == Path(name).name and name.isprintable() and name.endswith(".safetensors")
