"""What a checkpoint tells `generate`: every entry that chooses a token is the base's, defaults filled in.

What a release of transformers writes or leaves out when it saves a file again is no difference: 4.57.6 drops
`do_sample: false`, and 5.x writes no default at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from transformers import GenerationConfig

from harness.checks.check import fault
from harness.report.outcomes import FoundFault
from harness.subject.subject import Subject
from harness.subject.untrusted_files import read_json_or_none

GENERATION_FILE: Final = "generation_config.json"
_TOKEN_IDS: Final = ("eos_token_id", "bos_token_id", "pad_token_id")
# What an absent entry stands for, where that is not "nothing" (transformers 4.57.6, GenerationConfig.__init__, and
# 5.23.0, `_get_default_generation_params`; a guidance of 1 is none).
_DEFAULTS: Final[Mapping[str, Any]] = {
    "max_length": 20, "min_length": 0, "early_stopping": False, "do_sample": False, "num_beams": 1,
    "num_beam_groups": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "diversity_penalty": 0.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "num_return_sequences": 1,
    "token_healing": False, "guidance_scale": 1.0, "is_assistant": False, "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.4, "assistant_lookbehind": 10,
    "target_lookbehind": 10,
}  # fmt: skip
# Entries without such a default.
_OTHERS: Final = (
    "max_new_tokens", "min_new_tokens", "max_time", "stop_strings", "min_p", "top_h", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "sequence_bias", "watermarking_config", "decoder_start_token_id", "penalty_alpha",
    "dola_layers", "constraints", "force_words_ids", "forced_decoder_ids", "use_mtp",
)  # fmt: skip
# Entries that choose no token: how a model is run, and what is returned beside the tokens.
_HARMLESS: Final = frozenset(
    {
        "use_cache", "cache_implementation", "cache_config", "max_cache_len", "return_legacy_cache",
        "return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores", "output_logits",
        "prefill_chunk_size", "compile_config", "disable_compile", "low_memory", "renormalize_logits",
        "remove_invalid_values", "continuous_batching_config",
    }
)  # fmt: skip
_IGNORED: Final = frozenset({"transformers_version", "_from_model_config", "_commit_hash", "_name_or_path"})
_LEGACY: Final = (*_DEFAULTS, *_OTHERS)


def generation_fault(subject: Subject) -> FoundFault | None:
    """Return what the checkpoint tells `generate` otherwise than the base, as one fault; the rest is a finding."""
    assert subject.base is not None
    if not (config := subject.stored.config):
        return None  # it cannot be read, as the check of the files says
    root, base, base_config = subject.root, subject.base.root, subject.base.config or {}
    told: list[tuple[str, list[str]]] = []
    ours, theirs = _settings(root, config), _settings(base, base_config)
    refused = False
    if ours is None:
        told.append((f"{GENERATION_FILE} cannot be read", ["it is no JSON object"]))
    elif theirs is not None:
        differing = _differing(ours, theirs)
        faulty = [name for name in differing if not _is_harmless(name, theirs)]
        missing = (base / GENERATION_FILE).is_file() and not (root / GENERATION_FILE).is_file()
        if faulty:
            cause = "is missing" if missing else f"differs from the base's in {', '.join(faulty)}"
            told.append((f"{GENERATION_FILE} {cause}", list(_evidence(ours, theirs, faulty))))
        if harmless := [name for name in differing if name not in faulty]:
            values = "; ".join(_evidence(ours, theirs, harmless, "where the base says"))
            subject.findings.append(f"{GENERATION_FILE} differs in what chooses no token: {values}")
        if reason := _refused(root, base):
            refused = True
            told.insert(0, (f"transformers refuses {GENERATION_FILE}", [reason]))
    told += _of_the_model_config(config, base_config)
    if not told:
        return None
    (cause, evidence), *others = told  # each file says it: one fault, however many of them were changed
    return fault(
        "tokenizer", "generation-config-refused" if refused else "generation-settings-differ", cause,
        *evidence, *(line for other, lines in others for line in (other, *lines)),
        remedy=f"Copy {GENERATION_FILE} from the base, and leave such entries out of config.json: text is chosen, "
        "and ends, as it did there.",
    )  # fmt: skip


def settings_told_otherwise(ours: GenerationConfig, theirs: GenerationConfig) -> str | None:
    """Return in which entries the generation configs of two models differ, None if they choose tokens alike."""
    left, right = ours.to_dict(), theirs.to_dict()
    differing = [name for name in _differing(left, right) if name not in _HARMLESS]
    return "; ".join(_evidence(left, right, differing, "where the base says")) or None


def _settings(root: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what `generate` is told; None for a file that cannot be read. Without a file, config.json says it."""
    if not (root / GENERATION_FILE).is_file():
        return {name: config[name] for name in (*_TOKEN_IDS, *_LEGACY) if name in config}
    content = read_json_or_none(root / GENERATION_FILE)
    return content if isinstance(content, dict) else None


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*_TOKEN_IDS, *theirs, *ours])
    return [name for name in names if name not in _IGNORED and _value(ours, name) != _value(theirs, name)]


def _is_harmless(name: str, theirs: Mapping[str, Any]) -> bool:
    """Whether a difference in an entry chooses no token: padding and a first token can be added where none was."""
    if name in ("bos_token_id", "pad_token_id"):
        return theirs.get(name) is None
    return name in _HARMLESS or name not in (*_TOKEN_IDS, *_LEGACY)


def _value(settings: Mapping[str, Any], name: str) -> Any:
    """Return an entry so that equal ones are equal: its default for none, the set of its members for token ids."""
    value = settings.get(name)
    if value is None:
        value = True if name == "use_cache" else _DEFAULTS.get(name)
    if name.endswith("_token_id") or name in ("suppress_tokens", "begin_suppress_tokens"):
        members = value if isinstance(value, list) else [] if value is None else [value]
        return sorted(set(map(str, members)))
    if value is None or value == []:
        return False
    return value


def _evidence(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], names: Iterable[str], should: str = "but should be"
) -> Iterator[str]:
    for name in names:
        got, expected = (_short(side.get(name, _DEFAULTS.get(name))) for side in (ours, theirs))
        yield f"{name}={got}, {should} {expected}"


def _of_the_model_config(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return what config.json says otherwise: the token ids, and entries of `generate` in the form of old releases."""
    differing = [
        name for name in _TOKEN_IDS if theirs.get(name) is not None and _value(ours, name) != _value(theirs, name)
    ]
    differing += [
        name for name in _LEGACY if _value(ours, name) not in (_value({}, name), _value(theirs, name))
    ]  # fmt: skip
    if not differing:
        return []
    return [
        (f"config.json differs from the base's in {', '.join(differing)}", list(_evidence(ours, theirs, differing)))
    ]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _refused(root: Path, base: Path) -> str | None:
    """Return why transformers does not read the file, if it reads the base's: then no model loads."""
    reasons: list[str | None] = []
    for directory in (root, base):
        reason = None
        if (directory / GENERATION_FILE).is_file():
            try:
                GenerationConfig.from_pretrained(directory, local_files_only=True)
            except Exception as error:  # validation raises errors of several kinds, by version
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        reasons.append(reason)
    return reasons[0] if reasons[1] is None else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
