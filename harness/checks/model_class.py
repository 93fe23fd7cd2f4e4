"""The class: which one an Auto class would build in a fresh process, and from whose code."""

from __future__ import annotations

import ast
from pathlib import Path

from harness.reporting.report import FoundFault
from harness.stock import STOCK_MODEL_TYPES
from harness.subject import MANIFEST_FILE, Subject

from .check import FaultFound, NotChecked, Numbers, fault

_MODEL, _CONFIG = "AutoModelForCausalLM", "AutoConfig"
_REMEDY = (
    "Restore auto_map, architectures and model_type in config.json as prunecheck wrote them, "
    "or load with the class that skips these sub-layers."
)


def model_class(subject: Subject) -> Numbers:
    """What config.json leads to is a class that can skip what is pruned, and its code is there."""
    config = subject.stored.config
    if config is None:
        raise NotChecked("a state dict without config.json has no class: it is judged with prunecheck's")
    if (subject.root / "adapter_config.json").is_file():
        raise FaultFound(_adapter_beside_weights())
    if not config:
        raise NotChecked("config.json cannot be read, as the check of the files says")
    model_type, auto_map = config.get("model_type"), subject.code.auto_map
    pruned = len(subject.plan.self_attn) + len(subject.plan.mlp)
    known = model_type in STOCK_MODEL_TYPES
    evidence = [f"model_type={model_type!r}", f"auto_map={dict(auto_map) or None}"]
    if _MODEL not in auto_map:
        if known and pruned:
            raise FaultFound(
                fault(
                    "class", "stock-class-no-auto-map",
                    f"the stock class of {model_type!r} is built: {_MODEL} is missing from auto_map in config.json, "
                    f"so {pruned} pruned sub-layers would be initialised at random and run",
                    *evidence, remedy=_REMEDY,
                )
            )  # fmt: skip
        if not known:
            raise FaultFound(
                fault(
                    "class", "no-class",
                    f"no class is found for model_type {model_type!r}: {_MODEL} is missing from auto_map",
                    *evidence, remedy=_REMEDY,
                )
            )  # fmt: skip
        return None
    if not known and _CONFIG not in auto_map:
        raise FaultFound(
            fault(
                "class", "no-config-class",
                f"no config class is found for model_type {model_type!r}: {_CONFIG} is missing from auto_map",
                *evidence, remedy=_REMEDY,
            )
        )  # fmt: skip
    for auto_class in (_CONFIG, _MODEL):
        if auto_class in auto_map:
            _require_code(subject.root, auto_class, auto_map[auto_class])
    if known and pruned:
        subject.findings.append(
            f"model_type is {model_type!r}: without trust_remote_code=True the stock class loads in silence"
        )
    return None


def code_files(subject: Subject) -> Numbers:
    """The Python files are those of a release of prunecheck, or those that the manifest names."""
    if not subject.code.checksums:
        raise NotChecked("the checkpoint carries no Python files")
    if subject.code.released is not None:
        return None
    named = (subject.manifest or {}).get("code") or {}
    changed = sorted(
        name
        for name, checksum in subject.code.checksums.items()
        if isinstance(named, dict) and name in named and named[name] != checksum
    )
    if changed:
        subject.findings.append(f"{', '.join(changed)} is not the file that {MANIFEST_FILE} names: it was changed")
    raise NotChecked("the Python files are of no release of prunecheck: what they do is judged by running them")


def _adapter_beside_weights() -> FoundFault:
    """Return a fault of a directory from which some versions of transformers load another model than its weights.

    (4.57.6 and 5.0.0, `modeling_utils.py`, `from_pretrained`: the base model that the adapter names.)
    """
    return fault(
        "adapter", "adapter-beside-weights",
        "adapter_config.json lies beside the weights, so that transformers may load the base model that it names",
        remedy="Move the adapter to a directory of its own.",
    )  # fmt: skip


def _require_code(root: Path, auto_class: str, reference: str) -> None:
    """Raise FaultFound unless the class that an auto_map entry names is defined in a file of the checkpoint."""
    module, _, name = reference.rpartition(".")
    path = root / f"{module}.py"
    problem = None
    if "--" in reference:
        problem = "it lies in another repository, which may change or vanish"
    elif not path.is_file():
        problem = f"{path.name} is not there"
    else:
        try:
            names = {node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)}
            problem = None if name in names else f"{path.name} does not define it"
        except (SyntaxError, ValueError) as error:
            problem = f"{path.name} is no Python: {error}"
    if problem is not None:
        raise FaultFound(
            fault(
                "class", "no-code",
                f"auto_map[{auto_class!r}] is {reference!r}, but {problem}",
                remedy="Put the modeling files beside the weights, as prunecheck or save_pretrained writes them.",
            )
        )  # fmt: skip
