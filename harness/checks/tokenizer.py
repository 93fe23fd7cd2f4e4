"""The tokenizer's files and the generation config: as the base has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.reporting.report import FoundFault
from harness.subject import Subject

from .check import FaultFound, NotChecked, Numbers, fault

# What decides which tokens a text becomes, and where a text ends. Releases of transformers write other files beside
# them, or leave them out (5.x: special_tokens_map.json, added_tokens.json), and mean the same.
_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# Single entries count: what transformers adds when it saves a file again makes no difference.
_ENTRIES: Final = {
    "tokenizer_config.json": ("chat_template", "eos_token", "pad_token"),
    "generation_config.json": (
        "eos_token_id", "bos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p",
        "repetition_penalty", "max_new_tokens", "max_length",
    ),
}  # fmt: skip
# Entries that may be left out, but not say something else.
_IF_BOTH: Final = {
    "tokenizer_config.json": ("bos_token", "unk_token", "add_bos_token", "add_eos_token", "padding_side")
}
_GENERATION: Final = "generation_config.json"
_TOKEN_IDS: Final = ("eos_token_id", "bos_token_id", "pad_token_id")


def tokenizer_files(subject: Subject) -> Numbers:
    """Tokenizer, chat template and the settings of generation are the base's."""
    if subject.is_state_dict_only:
        raise NotChecked("a state dict without config.json has no tokenizer either")
    if subject.base is None:
        raise NotChecked("without --base there is nothing to compare the tokenizer's files with")
    root, base = subject.root, subject.base.root
    there = [name for name in (*_FILES, *_ENTRIES) if (base / name).is_file()]
    of_the_tokenizer = [name for name in there if name != "generation_config.json"]
    if of_the_tokenizer and not any((root / name).is_file() for name in of_the_tokenizer):
        subject.findings.append("the checkpoint has no tokenizer: the base's has to be used")
        there = [name for name in there if name not in of_the_tokenizer]
    faults = [found for name in there if (found := _file_fault(root, base, name)) is not None]
    ends = [each for each in faults if _GENERATION in each.cause] + _config_faults(subject)
    others = [each for each in faults if each not in ends]
    if ends:  # both files say where a text ends: one fault, however many of them were changed
        evidence = tuple(
            text for each in ends for text in (*([each.cause] if each is not ends[0] else []), *each.evidence)
        )
        others.insert(0, replace(ends[0], id="generation-settings-differ", evidence=evidence))
    if others:
        raise FaultFound(*others)
    if not there:
        raise NotChecked("the base has no tokenizer and no generation config")
    return {"files": len(there)}


def _file_fault(root: Path, base: Path, name: str) -> FoundFault | None:
    path = root / name
    if not path.is_file():
        # A template may have moved into the tokenizer's config, or out of it.
        if name.startswith("chat_template") and _template(root) == _template(base):
            return None
        if name in ("vocab.json", "merges.txt", "tokenizer.model") and (root / "tokenizer.json").is_file():
            return None
        return _tokenizer_fault(f"{name} is missing", "the base has it")
    if name in _ENTRIES:
        ours, theirs = _json(path), _json(base / name)
        differing = [entry for entry in _ENTRIES[name] if _entry(ours, entry) != _entry(theirs, entry)]
        for entry in _IF_BOTH.get(name, ()):
            if None not in (both := (_entry(ours, entry), _entry(theirs, entry))) and both[0] != both[1]:
                differing.append(entry)
        if "chat_template" in differing and _template(root) == _template(base):
            differing.remove("chat_template")
        if not differing:
            return None
        return _tokenizer_fault(
            f"{name} differs from the base's in {', '.join(differing)}",
            *(
                f"{each}={_short(_entry(ours, each))}, but should be {_short(_entry(theirs, each))}"
                for each in differing
            ),
        )
    if path.read_bytes() == (base / name).read_bytes() or (name.endswith(".json") and _same_json(path, base / name)):
        return None
    return _tokenizer_fault(f"{name} differs from the base's")


def _config_faults(subject: Subject) -> list[FoundFault]:
    ours, theirs = subject.stored.config or {}, (subject.base.config if subject.base is not None else None) or {}
    if not ours:
        return []  # it cannot be read, as the check of the files says
    differing = [name for name in _TOKEN_IDS if theirs.get(name) is not None and ours.get(name) != theirs[name]]
    if not differing:
        return []
    evidence = (f"{name}={ours.get(name)!r}, but should be {theirs[name]!r}" for name in differing)
    return [_tokenizer_fault(f"config.json differs from the base's in {', '.join(differing)}", *evidence)]


def _tokenizer_fault(cause: str, *evidence: str) -> FoundFault:
    return fault(
        "tokenizer", "tokenizer-files-differ", cause, *evidence,
        remedy="Copy the file from the base: text is cut into tokens, and ends, as it did there.",
    )  # fmt: skip


def _template(root: Path) -> Any:
    path = root / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        content = _json(root / name)
        if isinstance(content, dict) and content.get("chat_template") is not None:
            return content["chat_template"]
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _same_json(left: Path, right: Path) -> bool:
    content = _json(left)
    return content is not None and content == _json(right)


def _entry(content: Any, name: str) -> Any:
    """Return an entry of a JSON file; a token may be written as its text or as a record that holds the text."""
    value = content.get(name) if isinstance(content, dict) else None
    return value.get("content") if isinstance(value, dict) and "content" in value else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
