"""Records in a notebook or at a prompt: a few lines, a snippet of HTML, a pandas frame.

The snippet is HTML without styles, scripts or anything from elsewhere, so it takes the looks of the notebook and
leaves them as they are. Every text in it may be a stranger's, and is escaped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from harness.errors import CannotRun
from pruning import PlanError, PrunePlan

from .terminal import shortened, visible

if TYPE_CHECKING:
    import pandas

# At a prompt; a record that is an argument of a failed test is printed, too.
_MOST_LINES = 16
_LONGEST_LINE = 160
_WIDEST_LABEL = 60
# In HTML, where a cell wraps.
_MOST_FACTS = 100
_LONGEST_TEXT = 1000


@dataclass(frozen=True)
class Summary:
    """What people see first of a record: one line, then pairs of a label and a text; in HTML a table below."""

    title: str
    facts: Sequence[tuple[str, str]]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


class NotebookRecord(ABC):
    """A record that shows itself. Dataclasses that derive from it need `repr=False`."""

    @abstractmethod
    def summary(self) -> Summary:
        """Return what people see first."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the frame, each a value by the name of its column."""

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas frame; raises CannotRun, in one line, where pandas is not installed."""
        try:
            import pandas  # an extra
        except ImportError:
            raise CannotRun("frames need pandas, which is not installed: pip install 'prunecheck[notebook]'") from None
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        summary = self.summary()
        shown = _first(summary.facts, _MOST_LINES)
        width = min(max((len(label) for label, _ in shown), default=0), _WIDEST_LABEL)
        facts = [f"  {shortened(label, width):{width}}  {text}" for label, text in shown]
        lines = [f"{type(self).__name__}: {summary.title}", *facts]
        return "\n".join(shortened(visible(line), _LONGEST_LINE) for line in lines)

    def _repr_html_(self) -> str:
        """Return the record for Jupyter (IPython 9.18.1, `core/formatters.py`, HTMLFormatter)."""
        return "\n".join(_html(self.summary(), type(self).__name__))


def plan_text(plan: Mapping[str, Any]) -> str:
    """Return a record's plan for people; one that was read from a file need not be a plan."""
    try:
        return str(PrunePlan.from_dict(plan))
    except PlanError as error:
        return f"none: {error}"


def _first(facts: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    more = len(facts) - most
    return [*facts[:most], *([("...", f"and {more} more")] if more > 0 else [])]


def _html(summary: Summary, kind: str) -> Iterator[str]:
    yield f"<div><p>{_text(kind)}: <strong>{_text(summary.title)}</strong></p>"
    yield "<table>"
    for label, text in _first(summary.facts, _MOST_FACTS):
        yield f"<tr><th>{_text(label)}</th><td>{_text(text)}</td></tr>"
    yield "</table>"
    if summary.rows:
        yield f"<table><tr>{''.join(f'<th>{_text(name)}</th>' for name in summary.columns)}</tr>"
        for row in summary.rows:
            yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
        yield "</table>"
    yield "</div>"


def _text(text: str) -> str:
    return escape(visible(shortened(text, _LONGEST_TEXT)))
