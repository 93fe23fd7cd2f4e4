"""Pictures for a page or a file: one style for all, the same bytes for the same record, and words beside each."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that stay apart for the colour-blind, and in print (Okabe and Ito 2008, Color Universal Design).
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MISSING: Final = "matplotlib, which is not installed: pip install 'prunecheck[plot]'"
PAGE_WIDTH: Final = 4.8
"""Inches of a picture on a page: a phone shows it a little smaller, a desk a little larger."""


@dataclass(frozen=True)
class Picture:
    """A picture on a page. `words`, below it, tell what is seen in it; `missing` says why there is no `svg`."""

    title: str
    words: tuple[str, ...]
    svg: str | None
    missing: str | None = None


def picture(title: str, words: tuple[str, ...], draw: Callable[[], Figure]) -> Picture:
    """Return a picture of the figure that `draw` makes; without matplotlib, its words and what to install."""
    if find_spec("matplotlib") is None:
        return Picture(title, words, None, f"The picture needs {MISSING}")
    try:
        with drawing():
            return Picture(title, words, _svg(draw()))
    except Exception as error:  # the page says so, and no verdict rests on it: a record that took hours is not lost
        return Picture(title, words, None, f"The picture could not be drawn, {type(error).__name__}: {error}")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw, within the `with`, in the style of all pictures; needs matplotlib."""
    import matplotlib as mpl  # an extra

    # Names are anyone's: none of them is a formula, and characters that the font lacks become boxes.
    style = mpl.rc_context({"svg.hashsalt": "prunecheck", "font.size": 9, "text.parse_math": False})
    with style, warnings.catch_warnings(action="ignore"):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure into a PNG or SVG file, by its suffix; raises CannotRun if that cannot be done."""
    kind = path.suffix.lower().removeprefix(".")
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    write_bytes(path, file.getvalue())  # the old picture or the new one


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
