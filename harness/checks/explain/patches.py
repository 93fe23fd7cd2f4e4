"""What other code put into a model after it was built: hooks, and a `forward` in place of the class's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch import nn

# Where torch keeps what runs before and after a module's forward (torch 2.13.0, nn/modules/module.py).
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks")
_ACCELERATE: Final = "_hf_hook"  # which moves weights and inputs, and computes nothing (accelerate 1.15.0, hooks.py)


def patched_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules, by name, that have hooks or a forward of their own."""
    return {name or type(model).__name__: module for name, module in model.named_modules() if _is_patched(module)}


def _is_patched(module: nn.Module) -> bool:
    own_forward = "forward" in vars(module) and not hasattr(module, _ACCELERATE)
    return own_forward or any(getattr(module, name) for name in _HOOKS)


@contextmanager
def without_patches(model: nn.Module) -> Iterator[None]:
    """Leave out, within the `with`, what `patched_modules` finds."""
    patched = list(patched_modules(model).values())
    before: list[dict[str, Any]] = [
        {name: value for name, value in vars(module).items() if name in (*_HOOKS, "forward")} for module in patched
    ]
    try:
        for module in patched:
            for name in _HOOKS:
                vars(module)[name] = type(getattr(module, name))()
            if not hasattr(module, _ACCELERATE):
                vars(module).pop("forward", None)
        yield
    finally:
        for module, content in zip(patched, before, strict=True):
            vars(module).update(content)
