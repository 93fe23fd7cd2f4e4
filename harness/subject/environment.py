"""Where a judgement was made: versions, machine, and the digest of what was judged."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from typing import Any

import psutil
import torch

from harness.system.versions import installed_versions

from .subject import Subject


def environment(subject: Subject, **options: Any) -> dict[str, Any]:
    """Return versions, device, memory in bytes, how the plan was found, and how many decoder layers there are.

    `options` are what was asked for.
    """
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "versions": installed_versions(),
        "platform": platform.platform(),
        "devices": gpus or ["cpu"],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "plan_from": subject.plan_source,
        "layers": _layers(subject),
        "code": subject.code.released or ("its own" if subject.code.is_own else "none"),
        "checkpoint_digest": checkpoint_digest(subject),
        "options": options,
    }


def checkpoint_digest(subject: Subject) -> str:
    """Return a sha256 of config, code and the stored keys, dtypes, shapes and file sizes: what the headers say."""
    digest = hashlib.sha256()
    digest.update(json.dumps(subject.stored.config, sort_keys=True).encode())
    digest.update(json.dumps(dict(subject.code.checksums), sort_keys=True).encode())
    for key, tensor in sorted(subject.stored.tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tensor.shape} {tensor.file.name}\n".encode())
    return digest.hexdigest()


def _layers(subject: Subject) -> int | None:
    """Return how many decoder layers the model has, None where nothing says so."""
    try:
        layers = subject.config["num_hidden_layers"]
    except ValueError:
        return None
    return layers if isinstance(layers, int) else None
