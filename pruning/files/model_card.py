"""`README.md` of a pruned checkpoint: what was pruned, how to load and check it; below that the source's own card.

The hub reads a card's metadata, the licence among it, at the very start of the file alone. So the source's front matter
comes first, then a section of ours between two comments, then the rest of the source's card; both byte for byte,
whatever their encoding. No YAML is read or changed. Pruning once more replaces the section.

Nothing in it depends on this machine or on the time: the source is named by its hub id, or not at all.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pruning.plan import PrunePlan, layer_count, sublayers_of

from .manifest import source_identity
from .source import Source

CARD_FILE = "README.md"
HEAD_BYTES = 4 * 2**20
"""How much of a card's beginning `with_section` has to be given: front matter and an earlier section lie in it."""

_BEGIN = b"<!-- prunecheck: what was pruned. This part is written anew whenever the checkpoint is pruned. -->"
_END = b"<!-- prunecheck: what follows is the card of what was pruned. -->"

# As the hub's library finds it (huggingface_hub 2.4.0, `repocard.py`, REGEX_YAML_BLOCK), and a little more leniently:
# in doubt what stood at the start stays there. Searched line by line, since a lazy match would take quadratic time.
_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x1c-\x1f]*---[ \t]*(?:\r\n|\r|\n)")
_CLOSING = re.compile(rb"[\r\n]---[ \t]*(?:\r\n|\r|\n|\Z)")
_MOST_FRONT_MATTER = 2**20  # bytes; far more than any, and far less than HEAD_BYTES

# Stricter than a path in the hub's cache: the name comes into YAML, Markdown and a command line.
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_SECTION = """\
# Pruned checkpoint

Sub-layers of decoder layers were pruned from {origin} by prunecheck. Every tensor that is left
is the same, byte for byte. Below, `DST` is the directory of this checkpoint{source}.

| | |
|---|---|
{rows}

It carries the code that transformers loads it with:

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("DST", trust_remote_code=True)
```

Where prunecheck is installed none of that code needs to run, and what is off is an error:

```python
from pruning import load_pruned

model = load_pruned("DST")
```

The first command checks that it is what its plan makes of `{base}`, the second makes it:

```console
{commands}
```

"""


def with_section(head: bytes, section: bytes, front_matter: bytes) -> bytes:
    """Return the beginning of a source's card with our section in it, behind the front matter.

    `head` is the whole card, or its first HEAD_BYTES. A section that it has already is replaced. `front_matter` is
    what a card without any begins with.
    """
    length = _front_matter_length(head)
    front, rest = (head[:length], head[length:]) if length else (front_matter, head)
    if not front.endswith((b"\n", b"\r")):
        front += b"\n"
    return b"".join((front, _BEGIN, b"\n", section, _END, b"\n", _without_section(rest)))


def _front_matter_length(head: bytes) -> int:
    opening = _OPENING.match(head)
    if opening is None:
        return 0
    closing = _CLOSING.search(head, opening.end())
    return closing.end() if closing is not None and closing.start() < _MOST_FRONT_MATTER else 0


def _without_section(rest: bytes) -> bytes:
    """Return a card less the first section of ours; one whose end is missing is not taken for any."""
    begin = re.search(rb"^%b" % re.escape(_BEGIN), rest, re.MULTILINE)
    end = begin and re.compile(rb"^%b(?:\r?\n)?" % re.escape(_END), re.MULTILINE).search(rest, begin.end())
    return rest if begin is None or end is None else rest[: begin.start()] + rest[end.end() :]


def card_rewriter(source: Source, plan: PrunePlan, bytes_after: int) -> Callable[[bytes], bytes]:
    """Return the function that makes the beginning of a pruned checkpoint's card from that of its source's.

    `plan` is all that is pruned in it, `bytes_after` the bytes of its tensors. What is added is ASCII. The function is
    given the whole card of the source, empty if there is none, or its first HEAD_BYTES.
    """
    described = source.manifest.source if source.manifest else source_identity(source.root)
    name, revision = _hub_id(described)
    base = name or "SRC"
    lists = plan.to_lists()
    bytes_before = _bytes_before(source)
    rows = [("pruned", f"{len(plan.sublayers)} of {len(sublayers_of(layer_count(source.config)))} sub-layers")]
    rows += [(f"`{sublayer}` of layers", text or "none") for sublayer, text in lists.items()]
    rows.append(("bytes of tensors before", "unknown" if bytes_before is None else f"{bytes_before:,}"))
    share = f" ({bytes_after / bytes_before:.1%})" if bytes_before else ""
    rows.append(("bytes of tensors after", f"{bytes_after:,}{share}"))
    commands = [f"$ prunecheck check DST --base {base}"]
    if not plan.is_empty:
        options = [f"--{sublayer.replace('_', '-')} {text}" for sublayer, text in lists.items() if text]
        options += [f"--revision {revision}"] if revision else []
        commands.append(f"$ prunecheck prune {base} DST {' '.join(options)}")
    section = _SECTION.format(
        origin=f"`{name}`, revision `{revision}`" if name else "`SRC`",
        source="" if name else ", `SRC` that of what it was made from",
        rows="\n".join(f"| {title} | {value} |" for title, value in rows),
        base=base,
        commands="\n".join(commands),
    )
    base_model = f"base_model: {name}\n" if name else ""
    front_matter = f"---\nlibrary_name: transformers\n{base_model}---\n"
    return partial(with_section, section=section.encode(), front_matter=front_matter.encode())


def _bytes_before(source: Source) -> int | None:
    """Return the bytes of the tensors before any was pruned; None if a pruned source does not say."""
    stored = sum(tensor.size for tensor in source.tensors())
    if source.plan.is_empty:
        return stored
    if source.manifest is None:
        return None
    for entry in source.manifest.pruned.values():
        size = entry.bytes
        if not isinstance(size, int) or not 0 <= size < 2**63:
            return None
        stored += size
    return stored


def _hub_id(described: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return hub id and commit of a manifest's source; None, None for a directory, whose name is nobody's business."""
    name, revision = described.get("name"), described.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str):
        return None, None
    return (name, revision) if _HUB_ID.fullmatch(name) and _COMMIT.fullmatch(revision) else (None, None)
