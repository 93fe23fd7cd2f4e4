"""What an offloaded model would read: the values that accelerate's hooks bring in when a module runs."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness.models.parts import equal_values, unwrapped
from harness.models.session import Session
from harness.subject.stored import canonical_key


def offloaded_differences(session: Session) -> tuple[dict[str, str], int]:
    """Return what is wrong with the values that an offloaded model would read now, by key, and how many were compared.

    They are those that accelerate's hooks hold or read (accelerate 1.15.0, hooks.py, `AlignDevicesHook.weights_map`),
    compared with the base's: the checkpoint's own files may be what was replaced.
    """
    base = session.subject.base
    wrong: dict[str, str] = {}
    compared = 0
    if base is None:
        return wrong, compared
    for name, module in unwrapped(session.model).named_modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            weights: Any = getattr(each, "weights_map", None)
            for parameter_name, parameter in module.named_parameters(recurse=False) if weights is not None else ():
                key = canonical_key(f"{name}.{parameter_name}")
                if key not in base.tensors or not parameter.is_meta:
                    continue
                compared += 1
                values, expected = weights[parameter_name], base.tensors[key].read()
                if values.shape != expected.shape or not equal_values(values.cpu(), expected.to(values.dtype)):
                    wrong[key] = "differs from the base's"
    return wrong, compared


def offloaded_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters whose values accelerate's hooks bring in when they are needed."""
    names: set[str] = set()
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        if any(getattr(each, "weights_map", None) is not None for each in getattr(hook, "hooks", (hook,))):
            names |= {f"{name}.{each}".lstrip(".") for each, _ in module.named_parameters(recurse=False)}
    return names
