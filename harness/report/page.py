"""Records as pages: one HTML file each, which needs no network and runs no script.

What a page shows comes from the record alone, so it can be made of a JSON file as well. Names, paths and reasons are
strangers' text: jinja2 escapes every one of them, and what changes how text is shown stands as its escape, as on the
terminal.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pruning import PrunePlan

from .pictures import Picture
from .terminal import visible

_MOST_LAYERS: Final = 1000  # as many cells as a reader, and a browser, can take


@dataclass(frozen=True)
class Cell:
    """A decoder layer on the strip: its index, and whether each sub-layer is pruned."""

    index: int
    self_attn: bool
    mlp: bool


def page(template: str, **content: Any) -> str:
    """Return the page that a template of `templates/` makes; there is no Markup in `content`."""
    return _environment().get_template(template).render(content)


def plan_strip(plan: PrunePlan, layers: object) -> list[Cell]:
    """Return a cell for each layer; up to the last that is pruned, if it is not known how many `layers` there are."""
    last = max((each.layer for each in plan), default=-1)
    count = layers if isinstance(layers, int) and layers > last else last + 1
    if count > _MOST_LAYERS:
        return []
    return [Cell(index, index in plan.self_attn, index in plan.mlp) for index in range(count)]


def made_with(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where, and with what, a record was made, in words."""
    rows = []
    if isinstance(versions := environment.get("versions"), Mapping):
        rows.append(("versions", ", ".join(f"{name} {text or 'not installed'}" for name, text in versions.items())))
    for name in ("python", "platform", "devices", "cpus", "threads", "code", "checkpoint_digest"):
        if (value := environment.get(name)) is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((name.replace("_", " "), text))
    return rows


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["address"] = _address
    environment.filters["breakable"] = _breakable
    return environment


def _shown(value: Any) -> Any:
    if isinstance(value, Markup):
        return value
    return "" if value is None else visible(str(value))


def _breakable(name: str) -> Markup:
    """Return a name such as `cache.dynamic.beam`, which a narrow page breaks behind its dots."""
    return Markup(".<wbr>").join(map(visible, name.split(".")))  # which escapes what it joins


def _address(picture: Picture) -> str:
    """Return the picture as the address of an image, which runs no script and shares no names with the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode((picture.svg or '').encode()).decode()}"
