"""Load a pruned checkpoint strictly: what is off is an error before any inference, not garbled text after it."""

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from pruning.files.source import Source, find_checkpoint, read_source

from .audit import require_manifest
from .errors import CheckpointError
from .untrusted_files import shortened

# Arguments of `from_pretrained` that have it read other files, or other keys, than `read_source` does; None, or the
# value beside the name, does not.
_OTHER_FILES = {"subfolder": "", "variant": None, "gguf_file": None, "use_safetensors": True, "key_mapping": None}


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
    (missing, unexpected and mismatched keys) are not exactly what they must be, or if an argument or an adapter
    beside the weights would have other files loaded than those. The tensors' checksums are compared by
    `audit_checkpoint`, which reads every byte.
    """
    _require_same_files(kwargs)
    source = read_source(find_checkpoint(path if isinstance(path, str) else Path(path), revision))
    family = source.family
    if source.config["model_type"] != family.pruned_model_type:
        raise CheckpointError(
            f"{source.root} is not pruned: model_type is {source.config['model_type']!r}, "
            f"but should be {family.pruned_model_type!r}; load it with {family.architecture}.from_pretrained"
        )
    require_manifest(source)
    _require_no_adapter(source)
    _require_no_code_that_runs(source)
    if "torch_dtype" not in kwargs:  # the name of `dtype` before transformers 4.56
        kwargs.setdefault("dtype", "auto")
    modeling = import_module(f"pruning.remote.{family.modeling_module}")
    model_class = getattr(modeling, family.pruned_architecture)
    _require_config_class(kwargs.get("config"), model_class.config_class)
    model, report = model_class.from_pretrained(source.root, output_loading_info=True, **kwargs)
    _require_clean_report(source, report)
    _require_known_keys(source, model)
    _require_plan(source, model)
    return (model, report) if output_loading_info else model


def _require_same_files(kwargs: dict[str, Any]) -> None:
    for name, checked in _OTHER_FILES.items():
        if kwargs.get(name) not in (None, checked):
            raise CheckpointError(
                f"{name}={kwargs[name]!r} has other weights loaded than those that are checked: leave it out"
            )


def _require_no_adapter(source: Source) -> None:
    """Raise CheckpointError if transformers would load an adapter, and on that the base model that it names.

    (4.57.6 and 5.0.0, `modeling_utils.py`, `from_pretrained`: the weights of this directory are then passed by.)
    """
    if (source.root / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{source.root} holds an adapter (adapter_config.json), with which transformers would load the base "
            "model that it names: move it to a directory of its own"
        )


def _require_no_code_that_runs(source: Source) -> None:
    """Raise CheckpointError for code that transformers runs although nothing allowed it to.

    (4.57.6, `generation/utils.py`, `load_custom_generate`: for a local directory whatever `trust_remote_code` says.)
    """
    if (source.root / "custom_generate").exists():
        raise CheckpointError(
            f"{source.root} holds custom_generate, code that some versions of transformers would run: remove it"
        )
    if kernel := hub_kernel(source.config):
        raise CheckpointError(
            f"{source.root}: config.json has attention computed by {shortened(kernel)}, "
            "code of a hub repository, which would be fetched and run: remove it"
        )


def hub_kernel(config: Mapping[str, Any]) -> str | None:
    """Return the kernel of a hub repository, `owner/name`, that a config.json asks for; None if it asks for none.

    With the package `kernels` installed transformers fetches and runs it, whatever `trust_remote_code` says (4.57.6
    and 5.23.0, `integrations/hub_kernels.py`; the key is `_attn_implementation`, its value one name or one a part).
    """
    for name, value in config.items():
        if name.endswith(("implementation", "implementation_internal")):
            for each in value.values() if isinstance(value, dict) else [value]:
                if isinstance(each, str) and "/" in each:
                    return each
    return None


def _require_config_class(config: Any, config_class: type) -> None:
    if config is not None and not isinstance(config, (str, PathLike, config_class)):
        raise CheckpointError(
            f"config is a {type(config).__name__}, but should be a {config_class.__name__}: leave out config=..."
        )


def _require_known_keys(source: Source, model: Any) -> None:
    """Raise CheckpointError for a stored key that the model lacks, also one that transformers does not report.

    (4.57.6 and 5.23.0, `modeling_utils.py`, pass `rotary_emb.inv_freq` over.) A quantised checkpoint stores more
    than parameters: there the report has to do.
    """
    if source.config.get("quantization_config") is not None:
        return
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for tensor in source.tensors():
        if known.isdisjoint({tensor.name, f"{model.base_model_prefix}.{tensor.name}"}):
            raise CheckpointError(f"{source.root}: {tensor.name!r} is stored, but the model has no such parameter")


def _require_clean_report(source: Source, report: dict[str, Any]) -> None:
    for kind, keys in report.items():
        if keys:
            # A mismatched key comes with its shapes in 5.x (5.23.0, `modeling_utils.py`).
            found = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
            raise CheckpointError(
                f"{source.root} does not load as config.json says: {len(found)} {kind.replace('_', ' ')}, "
                f"first {found[0]}"
            )


def _require_plan(source: Source, model: Any) -> None:
    """Raise CheckpointError if the model skips something else than the checkpoint's plan: another config was given."""
    skipped = {f"layers.{name.partition('layers.')[2]}" for name, _ in model.pruned_modules()}
    planned = {str(each) for each in source.plan}
    if skipped != planned:
        differing = sorted(skipped ^ planned)
        raise CheckpointError(
            f"{source.root}: the model built skips other sub-layers than config.json says, first {differing[0]}: "
            "leave out config=..."
        )
