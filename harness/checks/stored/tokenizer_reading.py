"""Ways of reading texts with a tokenizer, and whether two of them read alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice, takewhile, zip_longest
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from harness.subject.untrusted_files import read_json_or_none
from harness.system.panics import Panicked, panics_as_errors
from harness.text.generation import text_prompts

TOKENIZER_FILE: Final = "tokenizer.json"
# Where tokenizers differ: normal forms, case, digits, runs of spaces and line breaks, contractions, scripts, marks.
_ODD_TEXTS: Final = (
    "", " ", "Hello", " hello", "e\u0301 \u00e9 \ufb01 \u2126", "I'll DON'T they're",
    "2024 1234567 3.14 \u0663\u0664", "a  b\t\tc \n\n d  ", "x\r\n\r\n  y", "Hello , world ! does n't .",
    "def f(x):\n\treturn x**2  # $5_000", "\U0001f44b\U0001f3fd 用中文 हिन्दी русский", "\x00\x7f\u200b\ufeff",
    "<|im_start|>user\nHi<|im_end|>\n<think></think>",
)  # fmt: skip
_MANY: Final = 2000  # of a vocabulary's tokens, each read as a text


@dataclass(frozen=True)
class Reader:
    """One way of reading texts with a tokenizer; `decode` leaves special tokens out, or does not.

    `merges` are those of a byte pair encoding, in order, empty for other kinds.
    """

    vocabulary: Mapping[str, int]
    merges: list[tuple[str, str]]
    encode: Callable[[list[str]], list[list[int]]]
    decode: Callable[[list[int], bool], str]


def read_alone(root: Path) -> Tokenizer | str | None:
    """Return what tokenizer.json holds, why it cannot be read, or None without the file."""
    if not (root / TOKENIZER_FILE).is_file():
        return None
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_file(str(root / TOKENIZER_FILE))
    except Exception as error:  # tokenizers raises plain Exceptions over what a file holds
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return bare(tokenizer)


def stored_vocabulary(root: Path) -> dict[str, int]:
    """Return the numbers of all tokens that the files name: tokenizer.json, or, without it, those that it is made of.

    These are the vocabulary of a byte pair encoding, tokens that were added to it, and what tokenizer_config.json says
    of them (transformers 4.57.6 and 5.23.0, `models/qwen2/tokenization_qwen2.py` and `tokenization_utils_base.py`).
    Empty where nothing can be read, which other checks tell.
    """
    tokenizer = read_alone(root)
    if isinstance(tokenizer, Tokenizer):
        return dict(tokenizer.get_vocab(with_added_tokens=True))
    if tokenizer is not None:
        return {}
    vocabulary, added, settings = (
        read if isinstance(read := read_json_or_none(root / name), dict) else {}
        for name in ("vocab.json", "added_tokens.json", "tokenizer_config.json")
    )
    if not vocabulary:
        return {}
    noted = settings.get("added_tokens_decoder")
    for number, token in noted.items() if isinstance(noted, dict) else ():
        if number.isdecimal() and len(number) < 10 and isinstance(token, dict):  # longer ones are none, or no number
            added = {**added, str(token.get("content")): int(number)}
    return {name: number for name, number in {**vocabulary, **added}.items() if isinstance(number, int)}


def bare(tokenizer: Tokenizer) -> Tokenizer:
    """Take padding and truncation from a tokenizer: they are set for each use, and saved with the file."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def of_tokenizers(tokenizer: Tokenizer) -> Reader:
    """Return how the tokenizers library reads by itself."""
    return Reader(
        tokenizer.get_vocab(with_added_tokens=True),
        _merges(tokenizer),
        lambda texts: [each.ids for each in tokenizer.encode_batch(texts)],
        lambda ids, skip: str(tokenizer.decode(ids, skip_special_tokens=skip)),
    )


def of_transformers(tokenizer: Any, *, merges: bool) -> Reader:
    """Return how a tokenizer of transformers reads; `merges`, which take time, only if asked for."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if merges else None
    return Reader(
        tokenizer.get_vocab(),
        [] if backend is None else _merges(backend),
        lambda texts: list(tokenizer(texts)["input_ids"]),
        lambda ids, skip: str(tokenizer.decode(ids, skip_special_tokens=skip)),
    )


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"].get("merges") or []
    pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in merges)
    return [(str(left), str(right)) for left, right in pairs]


def reads_otherwise(ours: Reader, theirs: Reader) -> list[str]:
    """Return in what two readers differ, in a few lines: tokens, what a text becomes, and what tokens become."""
    lines: list[str] = []
    known = sorted(theirs.vocabulary, key=theirs.vocabulary.__getitem__)
    names = [
        name
        for name in chain(known, sorted(ours.vocabulary.keys() - theirs.vocabulary.keys()))
        if ours.vocabulary.get(name) != theirs.vocabulary.get(name)
    ]
    if names:
        number, meant = (side.vocabulary.get(names[0], "absent") for side in (ours, theirs))
        lines.append(f"{len(names)} token(s) differ: {names[0]!r} is {number}, but should be {meant}")
    texts = list(_texts(ours, theirs))
    expected = theirs.encode(texts)
    try:
        with panics_as_errors():
            read = ours.encode(texts)
    except Panicked as error:  # the base's reads the same texts
        return [*lines, f"the tokenizers library panics: {error}"]
    differing = [index for index, ids in enumerate(read) if ids != expected[index]]
    if differing:
        index = min(differing, key=lambda each: len(texts[each]))
        got, should = _ids(read[index], expected[index]), _ids(expected[index], read[index])
        lines.append(f"{short(texts[index])} becomes {got}, but should be {should}")
    if names:
        return lines
    for ids in expected:
        for skip in (False, True):
            text, should = ours.decode(ids, skip), theirs.decode(ids, skip)
            if text != should:
                how = " without special tokens" if skip else ""
                return [*lines, f"{_ids(ids)} becomes {short(text)}{how}, but should be {short(should)}"]
    return lines


def _texts(ours: Reader, theirs: Reader) -> Iterator[str]:
    """Yield texts, each token that was added between words, and texts of the vocabulary's own tokens."""
    content = resources.files("harness").joinpath("data", "natural_texts.json").read_text(encoding="utf-8")
    yield from json.loads(content)
    yield from chain.from_iterable(text_prompts().values())
    yield from _ODD_TEXTS
    vocabulary = sorted(theirs.vocabulary, key=theirs.vocabulary.__getitem__)
    # Added tokens are last, and special ones often first; both have names that are texts.
    new = sorted(ours.vocabulary.keys() - theirs.vocabulary.keys())
    for name in dict.fromkeys([*vocabulary[:8], *vocabulary[-64:], *new[:64]]):
        yield f"Hello {name} world{name}x  {name}\n"
    merged = chain.from_iterable(
        pair for pair in zip_longest(ours.merges, theirs.merges, fillvalue=("", "")) if pair[0] != pair[1]
    )
    tokens = [*islice(("".join(pair) for pair in merged), _MANY), *vocabulary[:: max(1, len(vocabulary) // _MANY)]]
    for token in dict.fromkeys(tokens):
        if token in theirs.vocabulary:
            yield theirs.decode([theirs.vocabulary[token]], False)


def _ids(ids: Sequence[int], other: Sequence[int] = ()) -> str:
    """Return token ids in short, from shortly before where they leave `other`."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, other, strict=False)))
    start = max(0, same - 2)
    shown = ", ".join(map(str, ids[start : start + 8]))
    return f"[{'..., ' if start else ''}{shown}{', ...' if len(ids) > start + 8 else ''}]"


def short(text: str) -> str:
    """Return a text as Python writes it, cut off where it is long."""
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
