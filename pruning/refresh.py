"""Put the present modeling code in the place of what a pruned checkpoint carries: complete or untouched.

The new directory is built beside the old one, of hard links to all files that stay as they are, and takes its place in
one step (`staging.py`). No tensor is read or copied.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pruning.files.manifest import Manifest, checksums, manifest_lines, source_identity
from pruning.files.source import CONFIG_FILE, Source, read_source
from pruning.remote.per_layer_skip import MANIFEST_FILE
from pruning.writing.small_files import write_lines
from pruning.writing.staging import staged_directory, sweep, sync_path

from . import __version__
from .audit import require_manifest
from .errors import CheckpointError, DestinationError
from .released_code import ReleasedFile, released_file, released_files, version_of
from .untrusted_files import shortened


@dataclass(frozen=True)
class RefreshResult:
    """What `refresh_checkpoint` did: names of files, none if nothing was to be done.

    `before` is the version of prunecheck whose code was there; None if some of it was of no release, or nothing was.
    """

    path: Path
    before: str | None
    written: tuple[str, ...]
    removed: tuple[str, ...]


def refresh_checkpoint(checkpoint: str | os.PathLike[str], *, force: bool = False, sync: bool = True) -> RefreshResult:
    """Put the present code in the place of what the pruned checkpoint in the directory `checkpoint` carries.

    The Python files, `auto_map` in config.json and the manifest are renewed, and files of earlier releases that are not
    needed any more are removed. All other files are the very same, not copies. Whatever happens, the directory is as
    it was or complete. `force` also replaces code that is of no release. With `sync` all is on the disk at the return.

    Raises CheckpointError for what is not a pruned checkpoint of prunecheck's, or carries code of no release, and
    DestinationError for a directory that cannot be written, each with one line for a person.
    """
    root = _directory(checkpoint)
    before_reading = root.stat()
    source = _read_pruned(root)
    there = _code_there(source)
    if not force:
        _require_released(root, there)
    new = dict(_new_files(source))
    removed = tuple(sorted(there.keys() - source.family.code_names - _kept_strangers(there)))
    known = [file for file in there.values() if file is not None]
    before = version_of(known) if known and len(known) == len(there) else None
    if new or removed:
        _require_writable(root)
        try:
            _replace(root, before_reading, new, removed, sync)
        except OSError as error:
            raise DestinationError(f"{root} cannot be written: {error.strerror or error}") from None
    return RefreshResult(root, before, tuple(new), removed)


def _directory(checkpoint: str | os.PathLike[str]) -> Path:
    try:
        root = Path(os.path.realpath(Path(checkpoint).expanduser()))
        sweep(root)
        is_directory = root.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, a home that is not there
        raise CheckpointError(f"{checkpoint} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not is_directory:
        raise CheckpointError(f"{checkpoint} is not a directory: a hub id has to be downloaded to one first")
    if "revision" in source_identity(root):
        raise CheckpointError(f"{root} is the hub cache's copy of a commit: copy it to a directory of your own first")
    return root


def _read_pruned(root: Path) -> Source:
    source = read_source(root)
    if source.config["model_type"] != source.family.pruned_model_type:
        raise CheckpointError(
            f"{root} is not a pruned checkpoint of prunecheck's: model_type is {source.config['model_type']!r}, "
            f"but should be {source.family.pruned_model_type!r}"
        )
    require_manifest(source)
    return source


def _code_there(source: Source) -> dict[str, ReleasedFile | None]:
    """Return the code that the checkpoint carries: files named as ours, and those that `auto_map` leads to."""
    auto_map = source.config.get("auto_map")
    references = auto_map.values() if isinstance(auto_map, Mapping) else ()
    names = {*released_files(), *(f"{str(reference).rpartition('.')[0]}.py" for reference in references)}
    paths = [source.root / name for name in sorted(names)]
    return {path.name: released_file(path) for path in paths if path.parent == source.root and path.is_file()}


def _kept_strangers(there: Mapping[str, ReleasedFile | None]) -> set[str]:
    """Return the files that no release has by this name: they stay, though nothing leads to them any more."""
    return there.keys() - released_files().keys()


def _require_released(root: Path, there: Mapping[str, ReleasedFile | None]) -> None:
    strangers = [name for name, file in there.items() if file is None]
    if strangers:
        raise CheckpointError(
            f"{root} carries code of no release that prunecheck {__version__} knows: {shortened(strangers)[1:-1]}; "
            "keep what was changed there elsewhere, and replace it with --force"
        )


def _new_files(source: Source) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield name and content, in parts, of each file that is not what it should be."""
    code = source.family.code_files()
    for name, content in code.items():
        path = source.root / name
        if not path.is_file() or path.read_bytes() != content:
            yield name, [content.decode()]
    auto_map = source.family.auto_map
    if source.config.get("auto_map") != auto_map:
        yield CONFIG_FILE, [json.dumps({**source.config, "auto_map": auto_map}, indent=2), "\n"]
    manifest = source.manifest
    if manifest is not None and manifest.code != checksums(code):
        yield MANIFEST_FILE, _renewed(manifest, checksums(code))


def _renewed(manifest: Manifest, code: Mapping[str, str]) -> Iterator[str]:
    return manifest_lines(
        source=manifest.source,
        plan=manifest.plan,
        code=code,
        kept=manifest.kept.values(),
        pruned=manifest.pruned.values(),
    )


def _require_writable(root: Path) -> None:
    for place in (root, root.parent):
        # The second is for root, to whom every mode is leave to write.
        if not os.access(place, os.W_OK | os.X_OK) or not place.stat().st_mode & 0o222:
            raise DestinationError(f"{place} cannot be written: make it writable, or copy the checkpoint elsewhere")


def _replace(
    root: Path,
    before_reading: os.stat_result,
    new: Mapping[str, Iterable[str]],
    removed: Collection[str],
    sync: bool,
) -> None:
    with staged_directory(root, overwrite=True, sync=sync) as staging:
        _link_entries(root, staging, without={*new, *removed}, sync=sync)
        for name, lines in new.items():
            write_lines(staging / name, lines, sync)
        # Whoever replaces it (`prune --overwrite`, another refresh) puts another directory there.
        if not os.path.samestat(before_reading, root.stat()):
            raise DestinationError(f"{root} was replaced while it was read: call refresh again")


def _link_entries(source: Path, destination: Path, *, without: Collection[str] = (), sync: bool) -> None:
    """Make a directory of links to the files of another, folders within too, with its mode and owner."""
    with os.scandir(source) as entries:
        for entry in entries:
            place = destination / entry.name
            if entry.name in without:
                continue
            if entry.is_dir(follow_symlinks=False):
                place.mkdir()
                _link_entries(Path(entry.path), place, sync=sync)
            else:
                _link(Path(entry.path), place)
    status = source.stat()
    shutil.copymode(source, destination)
    with suppress(PermissionError):  # root alone may give a directory away
        os.chown(destination, status.st_uid, status.st_gid)
    if sync:
        sync_path(destination)


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file, place, follow_symlinks=False)
    except OSError as error:
        raise DestinationError(
            f"{file} cannot be linked: {error.strerror or error}; "
            "copy the checkpoint, with files of your own, to a file system that has hard links"
        ) from None
