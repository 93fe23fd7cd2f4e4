"""Faults in what ends a text and what begins it: generation config and chat template."""

from __future__ import annotations

from pathlib import Path

from harness.faults.checkpoint_files import Json, copy_checkpoint, edit_config, edit_json, read_json
from harness.faults.conditions import holds
from harness.faults.fault import Fault

_GENERATION_CONFIG = "generation_config.json"
_TEMPLATE = "chat_template.jinja"
_TOKENIZER_CONFIG = "tokenizer_config.json"


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
)
