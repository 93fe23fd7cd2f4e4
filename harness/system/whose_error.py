"""Whose error is it: that of a model, or another object under judgement, or one of our own?

What a checkpoint's code raises is what is looked for, and becomes a fault. What we raise ourselves, also by calling a
library wrongly, is a crash of the judge, and must not be blamed on a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import CO_VARARGS
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from torch import nn

_HARNESS: Final = Path(__file__).parents[1]
_A_STRANGERS: Final = _HARNESS / "faults"  # which plays the strangers whose checkpoints are judged


def raised_by(error: BaseException, *owners: Any) -> bool:
    """Whether an error came out of a method of one of `owners`: models, with their modules, or tokenizers.

    It did if, behind the last frame of ours, there is a frame whose first argument is an owner, a module of it, or its
    class. A hook of ours that fails within a model's forward pass is ours, and so is what a library raises that was
    called with wrong arguments.
    """
    return any(_belongs(_first_argument(frame), owners) for frame in _behind_ours(error.__traceback__))


@contextmanager
def ignoring_errors_of(*owners: Any) -> Iterator[None]:
    """Leave the `with` in silence at what `owners` raise, which another check tells; all else is raised."""
    try:
        yield
    except Exception as error:
        if not raised_by(error, *owners):
            raise


def _behind_ours(traceback: TracebackType | None) -> list[Any]:
    """Return the frames of a traceback behind the last one of ours, from the outermost on."""
    frames: list[Any] = []
    while traceback is not None:
        frame = traceback.tb_frame
        frames = [] if _is_ours(Path(frame.f_code.co_filename)) else [*frames, frame]
        traceback = traceback.tb_next
    return frames


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(_HARNESS) and not path.is_relative_to(_A_STRANGERS)


def _first_argument(frame: Any) -> Any:
    """Return what a frame was called with first, as it is now: the object, or the class, of a method."""
    code = frame.f_code
    if code.co_argcount:
        return frame.f_locals.get(code.co_varnames[0])
    if code.co_flags & CO_VARARGS:  # a decorator's `*args`
        arguments = frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount])
        return arguments[0] if arguments else None
    return None


def _belongs(value: Any, owners: tuple[Any, ...]) -> bool:
    for owner in owners:
        if value is owner or value is type(owner):
            return True
        if isinstance(owner, nn.Module) and any(value is module for module in owner.modules()):
            return True
    return False
