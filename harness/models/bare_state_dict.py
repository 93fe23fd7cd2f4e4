"""A state dict without config.json: put beside what it lacks to be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import NotChecked
from harness.subject.stored import CONFIG_FILE, INDEX_FILE, SINGLE_FILE
from harness.subject.subject import Subject
from pruning.families import FAMILIES


def completed(subject: Subject, directory: Path) -> Path:
    """Return `directory`, made when first asked for, in which the state dict has our class and the base's config.

    Raises NotChecked if there is no base, or no room for it.
    """
    if subject.base is None:
        raise NotChecked("a state dict without config.json needs --base, whose config says what it belongs to")
    if not directory.is_dir():
        try:
            directory.mkdir(parents=True)
            _write(subject, subject.base.config or {}, directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)  # half of it would be taken for all
            raise NotChecked(
                "the state dict cannot be put beside a config in the directory for temporary files, "
                f"{error.strerror}: set TMPDIR to another"
            ) from None
    return directory


def _write(subject: Subject, base_config: Mapping[str, Any], directory: Path) -> None:
    family = FAMILIES[0]
    config = {
        **base_config,
        "model_type": family.pruned_model_type,
        "architectures": [family.pruned_architecture],
        "auto_map": family.auto_map,
        "per_layer_config": subject.plan.to_per_layer_config(),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    for name, content in family.code_files().items():
        (directory / name).write_bytes(content)
    weight_map: dict[str, str] = {}
    for number, path in enumerate(subject.stored.files, start=1):
        name = SINGLE_FILE if len(subject.stored.files) == 1 else f"model-{number:05d}.safetensors"
        _link_or_copy(path.resolve(), directory / name)
        weight_map |= {tensor.key: name for tensor in subject.stored.tensors.values() if tensor.file == path}
    if len(subject.stored.files) > 1:
        (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        destination.symlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, destination)
