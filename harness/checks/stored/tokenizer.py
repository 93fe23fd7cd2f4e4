"""The tokenizer and what `generate` is told: where files differ from the base's, by what they do."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Final

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.errors import NotChecked, Undecided
from harness.models.session import has_tokenizer
from harness.report.outcomes import FoundFault
from harness.subject.stored import EMBEDDING
from harness.subject.subject import MANIFEST_FILE, Subject
from harness.subject.untrusted_files import read_json_or_none

from .generation_settings import GENERATION_FILE, generation_fault
from .tokenizer_behaviour import compare_tokenizers
from .tokenizer_reading import short, stored_vocabulary

# What decides which tokens a text becomes. Releases of transformers leave some of them out, and mean the same.
_FILES: Final = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_MORE_TEMPLATES: Final = "additional_chat_templates/*.jinja"


def tokenizer_files(subject: Subject) -> Numbers:
    """Tokenizer, chat template and the settings of generation are the base's."""
    if subject.is_state_dict_only:
        raise NotChecked("a state dict without config.json has no tokenizer either")
    if too_large := _beyond_the_vocabulary(subject):
        raise FaultFound(too_large)
    if subject.base is None:
        return _as_noted(subject)
    base = subject.base.root
    undecided: Undecided | None = None
    found = [generation_fault(subject)]
    try:
        found.append(_tokenizer_fault(subject, base))
    except Undecided as error:
        undecided = error
    if faults := [each for each in found if each is not None]:
        raise FaultFound(*faults)
    if undecided is not None:
        raise undecided
    there = [*_names(base), *([GENERATION_FILE] if (base / GENERATION_FILE).is_file() else [])]
    if not there:
        raise NotChecked("the base has no tokenizer and no generation config")
    return {"files": len(there)}


def _beyond_the_vocabulary(subject: Subject) -> FoundFault | None:
    """Return the fault of a tokenizer that gives tokens for which the model has no embedding."""
    embedding = subject.stored.tensors.get(EMBEDDING)
    if embedding is None or not embedding.shape:
        return None
    rows = embedding.shape[0]
    beyond = sorted((number, name) for name, number in stored_vocabulary(subject.root).items() if number >= rows)
    if not beyond:
        return None
    (number, name) = beyond[0]
    return fault(
        "tokenizer", "tokenizer-beyond-vocabulary",
        f"the tokenizer has {len(beyond)} token(s) for which the model has no embedding",
        f"{short(name)} is {number}, but {EMBEDDING} has {rows} rows",
        remedy="Take the tokenizer and the embedding from one checkpoint: such a token has any answer, or an error.",
    )  # fmt: skip


def _as_noted(subject: Subject) -> Numbers:
    """Compare with the manifest's checksums: those that differ may do the same, which only the base can show."""
    if not subject.noted_files:
        raise NotChecked("without --base there is nothing to compare the tokenizer's files with")
    if other := files_otherwise_than_noted(subject):
        raise NotChecked(f"{listed(other)}: not what {MANIFEST_FILE} has; whether it does the same is seen with --base")
    return {"files": len(subject.noted_files)}


def files_otherwise_than_noted(subject: Subject) -> list[str]:
    """Return the files of tokenizer and generation that are not those of the manifest, or not in it, or not there."""
    noted = {name for name in subject.noted_files if _counts(name)}
    there = [*_names(subject.root), *([GENERATION_FILE] if (subject.root / GENERATION_FILE).is_file() else [])]
    return [
        name
        for name in sorted({*noted, *there})
        if name not in there or _sha256(subject.root / name) != subject.noted_files.get(name)
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _counts(name: str) -> bool:
    return name in (*_FILES, GENERATION_FILE) or PurePath(name).match(_MORE_TEMPLATES)


def _tokenizer_fault(subject: Subject, base: Path) -> FoundFault | None:
    root = subject.root
    ours, theirs = _names(root), _names(base)
    if not theirs:
        if ours:
            subject.findings.append("the checkpoint has a tokenizer, and the base has none to compare it with")
        return None
    if not ours:
        subject.findings.append("the checkpoint has no tokenizer: the base's has to be used")
        return None
    missing = [name for name in theirs if name not in ours]
    differing = [name for name in ours if name not in theirs or not _same(root / name, base / name)]
    if not missing and not differing:
        return None
    if has_tokenizer(base) and not has_tokenizer(root):
        return _fault(f"{missing[0]} is missing", "the base has it")
    found = compare_tokenizers(root, base, subject.config)
    subject.findings.extend(found.findings)
    if not found.differences and found.undecided is not None:
        raise Undecided(found.undecided)
    if not found.differences:
        if differing and not found.findings:
            subject.findings.append(f"{', '.join(differing)}: written otherwise than the base's, and does the same")
        return None
    said = [f"{', '.join(differing)} differ{'s' if len(differing) == 1 else ''} from the base's"] if differing else []
    said += [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    return _fault("; ".join(said), *found.differences[:6])


def _names(root: Path) -> list[str]:
    more = sorted(str(path.relative_to(root)) for path in root.glob(_MORE_TEMPLATES))
    return [*(name for name in _FILES if (root / name).is_file()), *more]


def _same(left: Path, right: Path) -> bool:
    """Whether two files hold the same bytes, or the same JSON."""
    if left.read_bytes() == right.read_bytes():
        return True
    content = read_json_or_none(left) if left.suffix == ".json" else None
    return content is not None and content == read_json_or_none(right)


def _fault(cause: str, *evidence: str) -> FoundFault:
    return fault(
        "tokenizer", "tokenizer-files-differ", cause, *evidence,
        remedy="Copy the tokenizer's files from the base: text is cut into tokens as it was there.",
    )  # fmt: skip
