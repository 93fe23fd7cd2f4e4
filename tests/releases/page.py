"""The page of releases, from the records of their examinations."""

from collections.abc import Mapping
from typing import Any

_EXAMINED = {
    "exact": "logits without a cache are those of both references: layer 0, sliding and full attention mixed, "
    "whole layers, everything, and drawn checkpoints and plans",
    "caches": "dynamic, static and early-initialised static, one step at a time, chunked and left-padded; "
    "left-padded `generate`, and beam search",
    "8-bit, 4-bit": "bitsandbytes: logits are those of the reference that is quantised alike",
    "own code": "a process where prunecheck cannot be imported loads by `trust_remote_code`, saves and loads again: "
    "the same logits to the bit",
    "sound is sound": "`check` says so of sound variants",
    "faulty is faulty": "`check` says so of faults of as many families",
}

_HEAD = """\
# Releases of transformers

A row for each release that was examined, all with one torch. `python3 -m tox -e releases` examines the newest release
of each minor version, from the oldest supported to the newest that the package index has, and writes this page.

{properties}

A number counts the cases that are right. Where a case is not, it was run on the untouched stock model, too: if stock is
wrong as well, the cell says so, and the list below what it is.

"""


def page(records: list[Mapping[str, Any]]) -> str:
    """Return the page, in Markdown, of records in the order of the releases."""
    properties = list(records[0]["cells"])
    lines = [f"| transformers | {' | '.join(properties)} |", f"|---{'|---' * len(properties)}|"]
    notes: list[str] = []
    for record in records:
        cells = [_cell(record["cells"][name]) for name in properties]
        lines.append(f"| {record['transformers']} | {' | '.join(cells)} |")
        for name in properties:
            cell = record["cells"][name]
            notes += [f"* **{record['transformers']}, {name}**, ours: {_code(text)}" for text in cell["ours"]]
            notes += [f"* **{record['transformers']}, {name}**, stock: {_code(text)}" for text in cell["upstream"]]
    listed = "\n".join(["", "## What is wrong", "", *notes]) + "\n" if notes else "\nNothing is wrong in any of them.\n"
    head = _HEAD.format(
        properties="\n".join(
            [
                "| property | what is examined |",
                "|---|---|",
                *(f"| {name} | {_EXAMINED[name]} |" for name in properties),
            ]
        )
    )
    return head + "\n".join(lines) + "\n" + listed


def _cell(cell: Mapping[str, Any]) -> str:
    parts = [f"{cell['right']} right"] if cell["right"] else []
    parts += [f"{len(cell['upstream'])} wrong in stock, too"] if cell["upstream"] else []
    parts += [f"**{len(cell['ours'])} wrong**"] if cell["ours"] else []
    return ", ".join(parts)


def _code(text: str) -> str:
    """Return a message that any library may have written, as code on one line."""
    return "`" + " ".join(text.replace("`", "'").split())[:240] + "`"
