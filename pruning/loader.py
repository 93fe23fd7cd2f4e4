"""Load a pruned checkpoint strictly: what is off is an error before any inference, not garbled text after it."""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from .audit import require_manifest
from .errors import CheckpointError
from .plan import SUBLAYERS
from .source import Source, find_checkpoint, read_source


def load_pruned(
    path: str | PathLike[str],
    *,
    revision: str | None = None,
    output_loading_info: bool = False,
    **kwargs: Any,
) -> Any:
    """Load a pruned checkpoint, a directory or a hub id, with the installed model class; no remote code runs.

    `kwargs` are those of `from_pretrained`; `dtype` is the checkpoint's own unless given. With
    `output_loading_info` the result is the model and transformers' loading report.

    Raises CheckpointError if the keys on disk, the plan in the config, the manifest and the loading report
    (missing, unexpected and mismatched keys) are not exactly what they must be. The tensors' checksums are
    compared by `audit_checkpoint`, which reads every byte.
    """
    source = read_source(find_checkpoint(path if isinstance(path, str) else Path(path), revision))
    family = source.family
    if source.config["model_type"] != family.pruned_model_type:
        raise CheckpointError(
            f"{source.root} is not pruned: model_type is {source.config['model_type']!r}, "
            f"but should be {family.pruned_model_type!r}; load it with {family.architecture}.from_pretrained"
        )
    require_manifest(source)
    if "torch_dtype" not in kwargs:  # the name of `dtype` before transformers 4.56
        kwargs.setdefault("dtype", "auto")
    modeling = import_module(f"pruning.remote.{family.modeling_module}")
    model_class = getattr(modeling, family.pruned_architecture)
    model, report = model_class.from_pretrained(source.root, output_loading_info=True, **kwargs)
    _require_clean_report(source, report)
    _require_plan(source, model)
    return (model, report) if output_loading_info else model


def _require_clean_report(source: Source, report: dict[str, Any]) -> None:
    for kind, keys in report.items():
        if keys:
            found = sorted(map(str, keys))
            raise CheckpointError(
                f"{source.root} does not load as config.json says: {len(found)} {kind.replace('_', ' ')}, "
                f"first {found[0]}"
            )


def _require_plan(source: Source, model: Any) -> None:
    """Raise CheckpointError if the model skips something else than the checkpoint's plan: another config was given."""
    skipped = {name.partition("layers.")[2] for name, _ in model.pruned_modules()}
    planned = {f"{layer_idx}.{sublayer}" for sublayer in SUBLAYERS for layer_idx in getattr(source.plan, sublayer)}
    if skipped != planned:
        differing = sorted(skipped ^ planned)
        raise CheckpointError(
            f"{source.root}: the model built skips other sub-layers than config.json says, first {differing[0]}: "
            "leave out config=..."
        )
