"""Which shards the weights of a checkpoint lie in: those that its index names, or a single file."""

from pathlib import Path

from pruning.errors import CheckpointError
from pruning.untrusted_files import read_text, shortened

from .regular_files import is_file
from .shards import INDEX_FILE, SINGLE_FILE, Shard, read_shard

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_NO_WEIGHT_MAP = "it has no weight_map"


def read_shards(root: Path) -> tuple[Shard, ...]:
    """Read the headers of a checkpoint directory, in the order of the shards' names.

    Raises CheckpointError if there are none, if one is broken, or if the index is, or does not say what they do.
    """
    index, single = root / INDEX_FILE, root / SINGLE_FILE
    if not is_file(index):
        if not is_file(single):
            raise CheckpointError(_no_weights(root))
        return (read_shard(single),)
    listed = _read_weight_map(index)
    names = sorted(listed)
    if is_file(single) and SINGLE_FILE not in names:
        raise CheckpointError(
            f"{root} has both {SINGLE_FILE} and {INDEX_FILE}, of which transformers loads the first: "
            "remove the stale one"
        )
    for name in names:
        if not is_file(root / name):
            raise CheckpointError(f"{index} names {name}, which is not there: fetch it again")
    shards = tuple(read_shard(root / name) for name in names)
    # As save_pretrained lists them; in any other order they need a dictionary, which a million would make slow.
    if any(listed[shard.path.name] != [tensor.name for tensor in shard.tensors] for shard in shards):
        _require_index_agrees(index, {key: name for name, keys in listed.items() for key in keys}, shards)
    return shards


def _read_weight_map(index: Path) -> dict[str, list[str]]:
    """Return the keys that an index lists of each shard, in its order; no key comes twice."""
    listed: dict[str, list[str]] = {}
    try:
        text = read_text(index)
        for part in text.read_keys(otherwise=_NO_WEIGHT_MAP):
            if part == "weight_map":
                for key in text.read_keys(otherwise=_NO_WEIGHT_MAP):
                    name = text.read_value()
                    if not isinstance(name, str) or (name not in listed and not _is_shard_name(name)):
                        raise ValueError(
                            f"the shard of {shortened(key)} is {shortened(name)}, "
                            f"but should be a file name such as {SINGLE_FILE}"
                        )
                    listed.setdefault(name, []).append(key)
            else:
                text.read_value()
        text.require_end()
        if not listed:
            raise ValueError(_NO_WEIGHT_MAP)
    except ValueError as error:
        raise CheckpointError(f"{index}: {error}") from None
    return listed


def _require_index_agrees(index: Path, weight_map: dict[str, str], shards: tuple[Shard, ...]) -> None:
    """Raise CheckpointError if a tensor is stored twice, or elsewhere than the index says, or not at all."""
    stored = 0
    for shard in shards:
        name = shard.path.name
        for tensor in shard.tensors:
            named = weight_map.get(tensor.name)
            if named != name:
                raise CheckpointError(_disagreement(index, tensor.name, named, shard, shards))
        stored += len(shard.tensors)
    # Each tensor lies where the index has it, so once; what the index has beyond them is nowhere.
    if stored < len(weight_map):
        names = {tensor.name for shard in shards for tensor in shard.tensors}
        key, name = next((key, name) for key, name in weight_map.items() if key not in names)
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
