"""What all reports on a terminal share: how wide they are, and that text from strangers is shown, never obeyed."""

from __future__ import annotations

import os
import sys
import unicodedata

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# Wide enough that a table written to a file or a pipe keeps one line a row.
_WIDTH_WITHOUT_TERMINAL = 200

# Control, format (such as a reversal of the writing direction), surrogate, line separator, paragraph separator.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class _StdoutConsole(Console):
    """A console that writes on into nothing where whoever read the other end of a pipe has enough (`| head -1`).

    rich would end the command with 1 (15.0.0, `console.py`, `on_broken_pipe`), which stands for a fault, and the files
    that the command has still to write would be lost.
    """

    def on_broken_pipe(self) -> None:
        """Let stdout lead nowhere."""
        write_nowhere()


def stdout_console() -> Console:
    """Return a console on stdout, wide where that is no terminal."""
    console = _StdoutConsole(highlight=False)
    return console if console.is_terminal else _StdoutConsole(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def write_nowhere() -> None:
    """Let this process's stdout lead nowhere: what it still holds is lost without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def counted(count: int, thing: str) -> str:
    """Return a number with its thing in singular or plural: `1 window`, `2 windows`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def visible(text: str) -> str:
    """Return one line in which whatever moves a cursor, or changes what a terminal does, stands as its escape."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNPRINTABLE else character
        for character in text
    )


def plain(text: object, style: str = "") -> Text:
    """Return text as it is, in one style: no markup is read in it, and no control character is left in it."""
    return Text(visible(str(text)), style=style)


def fitting(console: Console, *tables: Table) -> Table:
    """Return the first table that fits the console's width with no cell broken; the last where none does."""
    unlimited = console.options.update(max_width=10_000)
    fits = (each for each in tables if Measurement.get(console, unlimited, each).maximum <= console.width)
    return next(fits, tables[-1])


def pairs(*rows: tuple[object, object]) -> Table:
    """Return rows of a short text and a long one, which is wrapped beside it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(overflow="fold")
    for left, right in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in (left, right)))
    return grid


def shortened(text: str, longest: int) -> str:
    """Return the beginning of a text that is too long to be read in a table; JSON has the whole."""
    return text if len(text) <= longest else f"{text[: longest - 4].rstrip()} ..."


def and_more(first: str, count: int) -> str:
    """Return the first of `count` names, and how many more there are."""
    return first if count == 1 else f"{first} and {count - 1} more"


def section(title: str, style: str, *content: RenderableType) -> Group:
    """Return content below a title and an empty line."""
    return Group(plain(""), plain(title, style), *content)
