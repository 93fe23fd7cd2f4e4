"""Two tokenizers compared by what they do: texts become the same tokens, and conversations the same texts.

Files say little: each release of transformers and of tokenizers writes the same tokenizer in another form. A tokenizer
is read in two ways, which both have to agree: as transformers loads it, and tokenizer.json by the tokenizers library
alone, since how much of that file transformers heeds depends on the release and on the tokenizer's class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness.subject.stock import stock_config_object
from harness.subject.untrusted_files import read_json_or_none
from harness.system.panics import panics_as_errors
from harness.system.whose_error import raised_by
from harness.text.chat_templates import rendered

from .tokenizer_reading import (
    TOKENIZER_FILE,
    bare,
    of_tokenizers,
    of_transformers,
    read_alone,
    reads_otherwise,
    short,
)

_CONFIG_FILE: Final = "tokenizer_config.json"
_USER: Final = {"role": "user", "content": " What is 2+2? "}
_ANSWER: Final = {"role": "assistant", "content": "<think>\nSum.\n</think>\n\n4"}
_CONVERSATIONS: Final[tuple[list[dict[str, str]], ...]] = (
    [_USER],
    [{"role": "system", "content": "Be brief."}, _USER, _ANSWER, {"role": "user", "content": "And 3+3?"}],
    [_USER, _ANSWER],
)
_SPECIAL: Final = ("eos_token", "bos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
# What may be said where the base says nothing: it changes none of the tokens of a text.
_MAY_BE_ADDED: Final = frozenset(_SPECIAL) - {"eos_token"}


@dataclass
class Comparison:
    """What a tokenizer does otherwise than the base's, in the words of evidence, and what is said of it besides.

    `undecided` is why they could not be compared.
    """

    differences: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    undecided: str | None = None


def compare_tokenizers(root: Path, base: Path, config: Mapping[str, Any]) -> Comparison:
    """Compare the tokenizer in `root` with that in `base`; nothing but files of data is read from either."""
    found = Comparison()
    theirs, base_error = _load(base, config)
    ours, error = _load(root, config)
    if error is not None and base_error is None:
        found.differences.append(f"it does not load: {error}")
    if ours is not None and _class_is_unknown(root):
        found.findings.append(
            f"tokenizer_class={read_json_or_none(root / _CONFIG_FILE)['tokenizer_class']!r} is unknown to transformers "
            f"{transformers.__version__}, which does not load the tokenizer by itself"
        )
    raw, base_raw = read_alone(root), read_alone(base)
    alone_too = isinstance(raw, Tokenizer) and isinstance(base_raw, Tokenizer)
    if ours is not None and theirs is not None:
        readers = (of_transformers(each, merges=not alone_too) for each in (ours, theirs))
        found.differences += reads_otherwise(*readers)
        _compare_settings(ours, theirs, base, config, found)
        _compare_templates(ours, theirs, found)
        _compare_declared(theirs, root, base, found)
    if isinstance(raw, Tokenizer) and isinstance(base_raw, Tokenizer):
        if not found.differences:
            _compare_alone(raw, base_raw, theirs, found)
    elif isinstance(raw, str) and isinstance(base_raw, Tokenizer):
        found.differences.append(f"{TOKENIZER_FILE} cannot be read: {raw}")
    elif theirs is None and not isinstance(base_raw, Tokenizer):
        found.undecided = f"the tokenizers are not compared: the base's does not load here ({base_error})"
    return found


def _compare_alone(raw: Tokenizer, base_raw: Tokenizer, theirs: Any, found: Comparison) -> None:
    """Compare what tokenizer.json says by itself."""
    if raw.to_str() == base_raw.to_str():
        return
    ours, expected = of_tokenizers(raw), of_tokenizers(base_raw)
    lines = reads_otherwise(ours, expected)
    backend = getattr(theirs, "backend_tokenizer", None)
    # What transformers makes of the base's files is what it saves, and as good as those.
    if lines and backend is not None and not reads_otherwise(ours, of_tokenizers(bare(backend))):
        return
    found.differences += [f"{TOKENIZER_FILE} by itself: {line}" for line in lines]
    if not lines and ours.merges != expected.merges:
        found.findings.append(
            f"the merges of {TOKENIZER_FILE} are not the base's, though no text that was tried shows it"
        )


def _load(root: Path, config: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return the tokenizer as transformers loads it, or why it does not."""
    is_unknown, config_object = _class_is_unknown(root), stock_config_object(config)
    try:
        with panics_as_errors():
            if is_unknown:  # of another release
                return PreTrainedTokenizerFast.from_pretrained(root), None
            return AutoTokenizer.from_pretrained(root, config=config_object, trust_remote_code=False), None
    except Exception as error:  # of many kinds, by version and by what is missing among the files
        return None, (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _class_is_unknown(root: Path) -> bool:
    content = read_json_or_none(root / _CONFIG_FILE)
    name = content.get("tokenizer_class") if isinstance(content, dict) else None
    return isinstance(name, str) and not hasattr(transformers, name) and (root / TOKENIZER_FILE).is_file()


def _compare_settings(ours: Any, theirs: Any, base: Path, config: Mapping[str, Any], found: Comparison) -> None:
    """Compare special tokens, and how texts are padded, cut off and split."""
    for name in _SPECIAL:
        _compare_special(name, _named(ours, name), _named(theirs, name), found)
    stated = read_json_or_none(base / _CONFIG_FILE)
    stated = stated if isinstance(stated, dict) else {}
    longest = int(config.get("max_position_embeddings") or 0)
    for name in ("padding_side", "truncation_side", "split_special_tokens", "model_max_length"):
        got, expected = getattr(ours, name, None), getattr(theirs, name, None)
        if got == expected:
            continue
        line = f"{name}={got!r}, but should be {expected!r}"
        harmless = name.endswith("_side") or (name == "model_max_length" and got is not None and got >= longest)
        if stated.get(name) is None and harmless:
            found.findings.append(f"the tokenizer says {name}={got!r}, where the base says nothing")
        else:
            found.differences.append(line)


def _named(tokenizer: Any, name: str) -> str | None:
    value = getattr(tokenizer, name, None)
    return None if value is None else str(value)


def _compare_special(name: str, got: str | None, expected: str | None, found: Comparison) -> None:
    if got == expected:
        return
    if expected is None and name in _MAY_BE_ADDED:
        found.findings.append(f"the tokenizer says {name}={got!r}, where the base says nothing")
    else:
        found.differences.append(f"{name}={got!r}, but should be {expected!r}")


def _compare_declared(theirs: Any, root: Path, base: Path, found: Comparison) -> None:
    """Compare what single files say with what the base does: not every release reads them."""
    vocabulary = theirs.get_vocab()
    added, special = (
        _beyond(read_json_or_none(root / name), read_json_or_none(base / name))
        for name in ("added_tokens.json", "special_tokens_map.json")
    )
    settings = read_json_or_none(root / _CONFIG_FILE)
    decoder = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
    declared = [(f"added_tokens.json: {name!r}", name, number) for name, number in added.items()]
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        name = _content(token)
        declared.append((f"added_tokens_decoder: {name!r}", str(name), int(number) if number.isdigit() else None))
    for where, name, number in declared:
        if vocabulary.get(name) != number:
            found.differences.append(f"{where} is {number}, but should be {vocabulary.get(name, 'absent')}")
    for name in _SPECIAL:
        if (content := _content(special.get(name))) is not None:
            _compare_special(name, str(content), _named(theirs, name), found)
    found.differences[:] = dict.fromkeys(found.differences)


def _beyond(content: Any, base: Any) -> dict[str, Any]:
    """Return the entries of a JSON object that the base's does not have alike."""
    theirs = base if isinstance(base, dict) else {}
    return (
        {name: value for name, value in content.items() if theirs.get(name) != value}
        if isinstance(content, dict)
        else {}
    )


def _content(token: Any) -> Any:
    """Return the text of a token, which may be written as its text or as a record that holds it."""
    return token.get("content") if isinstance(token, dict) else token


def _compare_templates(ours: Any, theirs: Any, found: Comparison) -> None:
    """Compare chat templates by what conversations become."""
    own, expected = _templates(ours), _templates(theirs)
    for name in dict.fromkeys([*expected, *own]):
        title = "the chat template" if name == "default" else f"the chat template {name!r}"
        if name not in own:
            found.differences.append(f"{title} is missing")
        elif name not in expected:
            if name != "default":
                found.findings.append(f"{title} is not among the base's")
                continue
            found.differences.append(f"{title} is {short(own[name])}, but the base has none")
        elif own[name] != expected[name]:
            both = (_rendered(ours, own[name]), _rendered(theirs, expected[name]))
            pairs = [pair for pair in zip(*both, strict=True) if pair[0] != pair[1]]
            if pairs:
                got, meant = pairs[0]
                found.differences.append(f"{title} makes {short(got)} of a conversation, but should {short(meant)}")
            else:
                found.findings.append(f"{title} is written otherwise, and makes the same of {len(both[0])} texts")


def _templates(tokenizer: Any) -> dict[str, str]:
    template = tokenizer.chat_template
    if not template:
        return {}
    return dict(template) if isinstance(template, Mapping) else {"default": str(template)}


def _rendered(tokenizer: Any, template: str) -> list[str]:
    """Return what a template makes of conversations, or what it raises: not every one knows every role."""
    texts = []
    for messages in _CONVERSATIONS:
        for prompt in (False, True):
            try:
                texts.append(rendered(tokenizer, messages, chat_template=template, add_generation_prompt=prompt))
            except Exception as error:
                if not (isinstance(error, TimeoutError) or raised_by(error, tokenizer)):
                    raise
                texts.append(f"{type(error).__name__}: {error}")
    return texts
