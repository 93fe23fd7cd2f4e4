"""Run `generate` and record what it computed: each step's tokens so far, and the log probabilities of the next."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from .forward import TokenBatch, input_device


class _Recorder(LogitsProcessor):  # type: ignore[misc, unused-ignore]  # untyped in some versions of transformers
    def __init__(self) -> None:
        self.steps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append((input_ids.cpu().clone(), scores.float().log_softmax(-1).cpu()))
        return scores


def generated_steps(
    model: Any, batch: TokenBatch, *, max_new_tokens: int, **options: Any
) -> list[tuple[Tensor, Tensor]]:
    """Return, for each step of `generate`, the tokens so far (rows, tokens) and log probabilities (rows, vocabulary).

    Nothing of the checkpoint's own generation config applies: no end token ends a row, no penalty changes a score.
    `options` are those of a GenerationConfig. Beams make several rows of each row of the batch.
    """
    recorder = _Recorder()
    device = input_device(model)
    with neutral_generation(model), torch.no_grad():
        generate_of_class(model)(
            batch.ids.to(device),
            attention_mask=batch.mask.to(device),
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0, **options
            ),
            logits_processor=LogitsProcessorList([recorder]),
        )
    return recorder.steps


def with_new_tokens(batch: TokenBatch, tokens: Tensor) -> TokenBatch:
    """Return `tokens` (rows, tokens), which a step of `generate` on the batch had, with their mask."""
    mask = batch.mask.repeat_interleave(tokens.shape[0] // batch.ids.shape[0], dim=0)
    return TokenBatch(tokens, torch.cat([mask, mask.new_ones(mask.shape[0], tokens.shape[1] - mask.shape[1])], dim=1))


def generate_of_class(model: Any) -> Any:
    """Return the `generate` of the model's class, bound to it, whatever `custom_generate/generate.py` put in its place.

    (transformers 5.23.0, `modeling_utils.py`: a trusted checkpoint's function becomes an attribute of the model.)
    """
    if "generate" in vars(model) and hasattr(type(model), "generate"):
        return partial(type(model).generate, model)
    return model.generate


@contextmanager
def neutral_generation(model: Any, keep: Collection[str] = ()) -> Iterator[None]:
    """Give the model a generation config that says nothing, within the `with`: unset options are filled in from it.

    `keep` are entries that stay as they are, such as "eos_token_id".
    """
    before = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(before, name, None) for name in keep})
    try:
        yield
    finally:
        model.generation_config = before
