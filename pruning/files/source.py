"""Read a checkpoint directory, pruned or not, without its tensors' bytes: config, shards, manifest, other files."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pruning.errors import CheckpointError
from pruning.families import Family, family_of
from pruning.plan import PrunePlan, layer_count
from pruning.regular_files import is_within
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.state_dict import is_pruned, require_sublayers
from pruning.untrusted_files import read_json, shortened

from .manifest import Manifest
from .shard_index import read_shards
from .shards import INDEX_FILE, Shard, Tensor

CONFIG_FILE = "config.json"

_TEMPLATES = "additional_chat_templates"
# What comes along, besides config and weights: what transformers reads beside them, and what the licence asks for.
COMPANIONS = (
    "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json", f"{_TEMPLATES}/*.jinja",
    "README.md", "LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*", "license*",
)  # fmt: skip

_MOST_COMPANION_BYTES = 10**9  # far beyond any tokenizer: a sparse file of any size costs its sender nothing

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_ADDRESS = re.compile(r"(?:https?:/{1,2})?(?:huggingface\.co|hf\.co)/(?P<hub_id>[A-Za-z0-9][\w.-]*/[\w.-]+).*")


@dataclass(frozen=True)
class Source:
    """A checkpoint directory, its headers read and found consistent; `plan` is what is pruned in it already."""

    root: Path
    config: dict[str, Any]
    family: Family
    plan: PrunePlan
    shards: tuple[Shard, ...]
    manifest: Manifest | None
    companions: tuple[str, ...]
    left_behind: tuple[str, ...]

    def files(self) -> Iterator[Path]:
        """Yield every entry of the directory that was read or seen."""
        yield from self.files_read()
        yield from (self.root / name for name in self.left_behind)

    def files_read(self) -> Iterator[Path]:
        """Yield the files of which something comes into a pruned checkpoint."""
        names = [CONFIG_FILE, INDEX_FILE, MANIFEST_FILE, *self.companions]
        yield from (shard.path for shard in self.shards)
        yield from (self.root / name for name in names)

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor, shard by shard, in the order of its bytes."""
        for shard in self.shards:
            yield from shard.tensors

    def tensors_under(self, plan: PrunePlan) -> tuple[Tensor, ...]:
        """Return the tensors that a plan prunes; raises PruningError if the plan does not fit."""
        plan.require_layers(layer_count(self.config))
        tensors = tuple(tensor for tensor in self.tensors() if is_pruned(tensor.name, plan))
        require_sublayers((tensor.name for tensor in tensors), plan - self.plan)
        return tensors


def removed_bytes(checkpoint: str | os.PathLike[str], plan: PrunePlan) -> int:
    """Return how many bytes of tensors a plan removes from a checkpoint directory; reads headers only.

    Raises CheckpointError if the checkpoint cannot be read, PlanError if the plan does not fit it.
    """
    return sum(tensor.size for tensor in read_source(Path(checkpoint)).tensors_under(plan))


def find_checkpoint(source: str | Path, revision: str | None = None) -> Path:
    """Return the directory of a checkpoint: a local one, or a hub id's, downloaded or found in the hub's cache.

    Raises CheckpointError if there is none, or if a revision is asked of a local directory.
    """
    try:
        path = Path(source).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, a home that is not there
        raise CheckpointError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if is_directory:
        if revision is not None:
            raise CheckpointError(f"{source} is a directory, which has no revision {revision!r}: leave it out")
        return path
    if reason := never_a_checkpoint(source):
        raise CheckpointError(f"{source} {reason}")
    if exists:
        raise CheckpointError(f"{source} is a file: name the directory that holds config.json")
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"{source} does not exist: name a checkpoint directory or a hub id such as Qwen/Qwen3-0.6B"
        )
    return _download(source, revision)


def never_a_checkpoint(source: str | Path) -> str | None:
    """Return why what was named can be neither a directory nor a hub id, and what to name; None if it may be one."""
    if str(source).endswith(".gguf"):
        return "is a GGUF file: name the safetensors checkpoint it came from"
    if address := _HUB_ADDRESS.fullmatch(str(source)):  # a Path of one has a slash less
        return f"is an address: name the hub id, {address['hub_id']}"
    return None


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # here, since most checkpoints are local
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # Not the other weight formats that many repositories hold beside the safetensors.
    patterns = ["*.safetensors", "*.json", *COMPANIONS]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    try:
        # Not left to the call above: offline, huggingface_hub 1.33.0 asks the hub for a commit that the cache has.
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise CheckpointError(
            f"{hub_id} is not a local directory and cannot be fetched from the hub: {reason}; "
            f"fetch it where there is a network: hf download {hub_id}"
        ) from None


def pruned_already(root: Path) -> PrunePlan:
    """Return what config.json says is pruned in a checkpoint directory; raises CheckpointError as `read_source`."""
    return _read_plan(_read_config(root))


def read_source(root: Path) -> Source:
    """Read a checkpoint directory.

    Raises CheckpointError if it is incomplete or inconsistent, of an unknown family, or has only
    pickled weights, or if its config's plan is not a valid one.
    """
    config = _read_config(root)
    family = family_of(config)
    plan = _read_plan(config)
    shards = read_shards(root)
    _require_consistent(shards, plan, root)
    known = {
        CONFIG_FILE,
        INDEX_FILE,
        MANIFEST_FILE,
        *(shard.path.name for shard in shards),
        *family.code_names,
    }
    others = _entries(root).difference(known)
    companions = {name for name in others if _comes_along(name) and (root / name).is_file()}
    return Source(
        root=root,
        config=config,
        family=family,
        plan=plan,
        shards=shards,
        manifest=Manifest.read(root) if family.pruned_model_type == config["model_type"] else None,
        companions=tuple(sorted(companions)),
        left_behind=tuple(sorted(others - companions)),
    )


def require_prunable(source: Source) -> None:
    """Raise CheckpointError if a checkpoint that was read cannot be pruned.

    That is if it is quantised, or not a plain causal LM, or one of its files is absurdly large, or lies elsewhere:
    whoever sent it would choose which of this machine's files the pruned checkpoint has.
    """
    for file in source.files_read():
        if not is_within(file, source.root):
            raise CheckpointError(
                f"{file} is a link to {shortened(os.path.realpath(file))}, which is outside the checkpoint: "
                "put the file itself in its place"
            )
    for companion in (source.root / name for name in source.companions):
        if (size := companion.stat().st_size) > _MOST_COMPANION_BYTES:
            raise CheckpointError(f"{companion} has {size} bytes, more than any such file needs: remove it")
    config, family = source.config, source.family
    if config.get("quantization_config") is not None:
        raise CheckpointError(
            f"{source.root} is quantised (quantization_config in config.json): "
            "prune the unquantised checkpoint and quantise the result"
        )
    known = (family.architecture, family.pruned_architecture)
    architectures = config.get("architectures") or [family.architecture]
    if not isinstance(architectures, list) or not all(name in known for name in architectures):
        raise CheckpointError(
            f"{source.root}: architectures in config.json is {shortened(architectures)}, "
            f"but should be [{family.architecture!r}]"
        )
    if config["model_type"] == family.model_type and config.get("auto_map"):
        raise CheckpointError(
            f"{source.root} has modeling code of its own (auto_map in config.json), "
            "which a pruned checkpoint would lose"
        )


def _read_config(root: Path) -> dict[str, Any]:
    path = root / CONFIG_FILE
    try:
        config = read_json(path)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return config


def _read_plan(config: dict[str, Any]) -> PrunePlan:
    try:
        return PrunePlan.from_config(config)
    except ValueError as error:
        raise CheckpointError(f"config.json: {str(error)[:500]}") from None  # a key of it may have any length


def _require_consistent(shards: tuple[Shard, ...], plan: PrunePlan, root: Path) -> None:
    if plan.is_empty:
        return  # without a look at every name
    for shard in shards:
        for tensor in shard.tensors:
            if is_pruned(tensor.name, plan):
                raise CheckpointError(
                    f"{root}: {shortened(tensor.name)} is stored in {shard.path.name}, "
                    "but config.json says that it is pruned"
                )


def _entries(root: Path) -> set[str]:
    """Return what lies in a checkpoint directory, folders with a slash behind; of the chat templates, each."""
    try:
        folders = [root, *(folder for folder in [root / _TEMPLATES] if folder.is_dir())]
        paths = [path for folder in folders for path in folder.iterdir() if path not in folders]
        return {path.relative_to(root).as_posix() + ("/" if path.is_dir() else "") for path in paths}
    except OSError as error:
        raise CheckpointError(f"{root} cannot be listed: {error.strerror}") from None


def _comes_along(name: str) -> bool:
    # Names first: each pattern has to be compiled, which a load would wait for.
    return name.isprintable() and (name in COMPANIONS or any(fnmatchcase(name, pattern) for pattern in COMPANIONS))
