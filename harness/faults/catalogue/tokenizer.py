"""Faults in how text is read, chosen and ended: tokenizer, chat template and generation config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.faults.fault import Fault
from harness.faults.planting.checkpoint_files import (
    CONFIG,
    Json,
    copy_checkpoint,
    edit_config,
    edit_json,
    read_json,
    write_json,
)
from harness.faults.planting.conditions import holds

_GENERATION_CONFIG = "generation_config.json"
_TEMPLATE = "chat_template.jinja"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER = "tokenizer.json"
_SPECIAL_TOKENS = "special_tokens_map.json"


def _lose_eos(checkpoint: Path, destination: Path) -> None:
    """Delete the generation config, and the end of text from `config.json`, which `generate` would fall back to."""
    copy_checkpoint(checkpoint, destination)
    (destination / _GENERATION_CONFIG).unlink()
    edit_config(destination, lambda config: config.pop("eos_token_id", None))


def _lose_template(checkpoint: Path, destination: Path) -> None:
    copy_checkpoint(checkpoint, destination)
    (destination / _TEMPLATE).unlink(missing_ok=True)

    def change(tokenizer_config: Json) -> None:
        tokenizer_config.pop("chat_template", None)

    if (destination / _TOKENIZER_CONFIG).exists():
        edit_json(destination / _TOKENIZER_CONFIG, change)


def _has_template(checkpoint: Path) -> str | None:
    tokenizer_config = checkpoint / _TOKENIZER_CONFIG
    if (checkpoint / _TEMPLATE).exists():
        return None
    if tokenizer_config.exists() and "chat_template" in read_json(tokenizer_config):
        return None
    return f"{checkpoint} has no chat template, which the fault deletes"


def _suppress(content: Json) -> None:
    content["suppress_tokens"] = [3, 4, 5]


def _forbid_repetition(content: Json) -> None:
    content["no_repeat_ngram_size"] = 2


def _edited(name: str, change: Callable[[Json], None]) -> Callable[[Path, Path], None]:
    """Return a mutation that writes a copy in which one JSON file is changed."""

    def plant(checkpoint: Path, destination: Path) -> None:
        copy_checkpoint(checkpoint, destination)
        edit_json(destination / name, change)

    return plant


def _lower_case(tokenizer: Json) -> None:
    tokenizer["normalizer"] = {"type": "Lowercase"}


def _override_special_token(checkpoint: Path, destination: Path) -> None:
    """Name another end of text, a token that the vocabulary has, in a file that old releases read."""
    copy_checkpoint(checkpoint, destination)
    vocabulary = read_json(checkpoint / _TOKENIZER)["model"]["vocab"]
    path = destination / _SPECIAL_TOKENS
    content = read_json(path) if path.exists() else {}
    write_json(path, content | {"eos_token": min(vocabulary, key=vocabulary.__getitem__)})


FAULTS = (
    Fault(
        id="eos-or-template-lost",
        family="tokenizer",
        where="tokenizer",
        symptom="runs on",
        met="QwenLM/Qwen3#927",
        description="generation_config.json is deleted and config.json names no eos_token_id, so nothing ends a text",
        requires=holds(_GENERATION_CONFIG, "which the fault deletes"),
        plant=_lose_eos,
    ),
    Fault(
        id="eos-or-template-lost:template",
        family="tokenizer",
        where="tokenizer",
        symptom="runs on",
        met="QwenLM/Qwen3#927",
        description="the chat template is deleted",
        requires=_has_template,
        plant=_lose_template,
    ),
    Fault(
        id="eos-or-template-lost:settings",
        family="tokenizer",
        where="tokenizer",
        symptom="other text",
        description="generation_config.json suppresses tokens, which the base's does not",
        requires=holds(_GENERATION_CONFIG, "to which the fault adds an entry"),
        plant=_edited(_GENERATION_CONFIG, _suppress),
    ),
    Fault(
        id="eos-or-template-lost:settings-in-config",
        family="tokenizer",
        where="tokenizer",
        symptom="other text",
        description="config.json forbids repetition, in the form that generation settings had before their own file",
        plant=_edited(CONFIG, _forbid_repetition),
    ),
    Fault(
        id="eos-or-template-lost:special-token",
        family="tokenizer",
        where="tokenizer",
        symptom="runs on",
        description="special_tokens_map.json names another end of text than the base's tokenizer has",
        requires=holds(_TOKENIZER, "whose special token the fault overrides"),
        plant=_override_special_token,
    ),
    Fault(
        id="eos-or-template-lost:tokens",
        family="tokenizer",
        where="tokenizer",
        symptom="other text",
        description="tokenizer.json turns text into lower case before it is cut into tokens",
        requires=holds(_TOKENIZER, "which the fault changes"),
        plant=_edited(_TOKENIZER, _lower_case),
    ),
)
