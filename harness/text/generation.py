"""Models as the judge of generated text hears them: what they are asked, and what they say.

Text is generated as users generate it, by `generate` over the model's own KV cache, since some faults show only there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.models.generation import generate_of_class, neutral_generation
from harness.reference.models import reference_logits
from harness.system.panics import panics_as_errors

from .chat_templates import rendered

_SPECIAL_IDS: Final = ("eos_token_id", "pad_token_id", "bos_token_id")

LogitsOf = Callable[[Tensor], Tensor]
"""Uncached logits: token ids (1, tokens) to float32 (1, tokens, vocabulary)."""


@dataclass(frozen=True)
class Continuation:
    """What a model said: `ended` with an end token of its own, `text` with special tokens, None without tokenizer.

    `step_logits` (new tokens, vocabulary) are those that each new token was chosen by, over the KV cache;
    `temperature` is 0 for greedy.
    """

    prompt_ids: list[int]
    new_ids: list[int]
    text: str | None
    ended: bool
    temperature: float = 0.0
    step_logits: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def ids(self) -> Tensor:
        """Prompt and new tokens (1, tokens)."""
        return torch.tensor([self.prompt_ids + self.new_ids])


@dataclass(frozen=True)
class Speech:
    """What one model said to several prompts, its uncached `logits`, and the token ids that end what it says."""

    said: Sequence[Continuation]
    logits: LogitsOf
    end_ids: frozenset[int] = frozenset()

    def logits_of_new(self, said: Continuation) -> Tensor:
        """Uncached logits that predict the new tokens of `said`, anyone's (new tokens, vocabulary)."""
        return self.logits(said.ids)[0, len(said.prompt_ids) - 1 : -1]


@dataclass(frozen=True)
class Voice:
    """A model as the judge hears it; `within` is entered around each use, so that one model can be two voices."""

    model: PreTrainedModel
    within: Callable[[], AbstractContextManager[object]] = nullcontext

    def logits(self, input_ids: Tensor) -> Tensor:
        """Uncached logits of `input_ids` (1, tokens), float32 (1, tokens, vocabulary) on the CPU."""
        with self.within():
            return reference_logits(self.model, input_ids).cpu()

    @property
    def end_ids(self) -> frozenset[int]:
        """The token ids that end what the model says."""
        ids = self.model.generation_config.eos_token_id
        return frozenset() if ids is None else frozenset([ids] if isinstance(ids, int) else ids)

    def continue_prompt(
        self,
        prompt_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Continuation:
        """Let the model continue `prompt_ids` through `generate` and its KV cache; the caller's seed is untouched."""
        input_ids = torch.tensor([list(prompt_ids)])
        device = self.model.device if self.model.device.type != "meta" else torch.device("cpu")
        choice = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature
            else {"do_sample": False}
        )
        model: Any = self.model
        # What else the checkpoint's generation config asks for, beams or penalties, is judged where it is stored: here
        # it would change the distributions, or want what `generate` is not given.
        with torch.random.fork_rng(), torch.no_grad(), self.within(), neutral_generation(model, _SPECIAL_IDS):
            torch.manual_seed(seed)
            generated = generate_of_class(model)(
                input_ids.to(device),
                attention_mask=torch.ones_like(input_ids, device=device),
                max_new_tokens=max_new_tokens,
                remove_invalid_values=True,  # sampling from NaN would raise; `logits` are those before the repair
                **choice,
                return_dict_in_generate=True,
                output_logits=True,
            )
        new_ids = generated.sequences[0, len(prompt_ids) :].tolist()
        return Continuation(
            prompt_ids=list(prompt_ids),
            new_ids=new_ids,
            text=None if tokenizer is None else decoded(tokenizer, new_ids),
            ended=new_ids[-1] in self.end_ids,
            temperature=temperature,
            step_logits=torch.cat(generated.logits).float().cpu(),
        )

    def speak(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Speech:
        """Let the model continue each of `prompts`, texts (which need a tokenizer) or token ids, with its own seed."""
        said = [
            self.continue_prompt(
                encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else prompt,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed + index,
                tokenizer=tokenizer,
            )
            for index, prompt in enumerate(prompts)
        ]
        return Speech(said, self.logits, self.end_ids)


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids, special tokens included."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def text_prompts() -> dict[str, list[str]]:
    """Return short requests for a chat model by kind: terse answers, lists, code, other languages and so on."""
    content = resources.files("harness").joinpath("data", "text_prompts.json").read_text(encoding="utf-8")
    prompts: dict[str, list[str]] = json.loads(content)
    return prompts


def random_prompts(vocabulary_size: int, *, count: int = 4, length: int = 12, seed: int = 0) -> list[list[int]]:
    """Return `count` prompts of `length` token ids each, for models without a tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    prompts: list[list[int]] = torch.randint(vocabulary_size, (count, length), generator=generator).tolist()
    return prompts


def encode_prompt(tokenizer: PreTrainedTokenizerBase | None, text: str) -> list[int]:
    """Return the token ids of `text`, as a chat's first message where the tokenizer has a template."""
    if tokenizer is None:
        raise ValueError(f"prompts must be token ids where there is no tokenizer, but got {text!r}")
    with panics_as_errors():
        return _prompt_ids(tokenizer, text)


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": text}]
        text = rendered(tokenizer, messages, add_generation_prompt=True)
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    else:
        ids = tokenizer(text).input_ids
    return ids
