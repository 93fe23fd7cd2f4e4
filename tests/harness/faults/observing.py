"""What a model computes, uncached and through caches, and whether that is what its reference computes."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, StaticCache

from harness.faults import Fault, SoundVariant
from harness.faults.planting.checkpoint_files import config_of
from harness.faults.planting.loading import from_auto, from_own_code, scratch_checkpoint
from harness.models.forward import with_cache
from harness.reference.models import identity_reference
from harness.reference.tolerances import assert_logits_close
from pruning import PrunePlan

IDS = torch.randint(3, 64, (2, 14), generator=torch.Generator().manual_seed(0))
EVERY_TOKEN = torch.ones_like(IDS)
LEFT_PADDED = (torch.arange(IDS.shape[1]) >= torch.tensor([[3], [0]])).long()
PIECES = (3, 4, 1, 1, 5)  # in which the tokens go in, longer and shorter than the sliding window of 4

_PRECISION = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Case:
    """An unpruned checkpoint, and the sound pruned one that was made from it by `plan`."""

    base: Path
    sound: Path
    plan: PrunePlan

    @functools.cache  # noqa: B019  # the cases live as long as the session
    def reference(self, dtype: torch.dtype) -> PreTrainedModel:
        """Return the identity reference in `dtype`."""
        return identity_reference(self.base, self.plan.self_attn, self.plan.mlp, dtype=dtype)


def load(checkpoint: Path, **from_pretrained_kwargs: Any) -> PreTrainedModel:
    """Load as a user does who trusts the checkpoint's code, or the stock class where it names none."""
    loader = from_own_code if "auto_map" in config_of(checkpoint) else from_auto
    return loader(checkpoint, **from_pretrained_kwargs)


@contextmanager
def loaded(mutation: Fault | SoundVariant, sound: Path, **from_pretrained_kwargs: Any) -> Iterator[Any]:
    """Yield the model that the mutation of a sound checkpoint gives, whichever way it is made."""
    if mutation.load is not None:
        with mutation.load(sound) as model:
            yield model
        return
    assert mutation.plant is not None
    with scratch_checkpoint() as scratch:
        mutation.plant(sound, scratch)
        yield load(scratch, **from_pretrained_kwargs)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Return each token's position, counted from the first that is no padding, as `generate` counts."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def uncached(model: Any, mask: torch.Tensor = EVERY_TOKEN) -> torch.Tensor:
    """Return the logits of `IDS` without a cache, (batch, tokens, vocabulary)."""
    logits: torch.Tensor = model(IDS, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits
    return logits


@torch.no_grad()
def cached(model: Any, kind: str, mask: torch.Tensor = EVERY_TOKEN) -> torch.Tensor:
    """Return the logits of `IDS` through a 'dynamic' or 'static' cache, piece by piece."""
    if kind == "dynamic":
        cache: Any = DynamicCache(config=model.config)
    else:
        cache = StaticCache(config=model.config, max_cache_len=IDS.shape[1] + 2)
    logits, start = [], 0
    for length in PIECES:
        end = start + length
        output = model(
            IDS[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=None if mask.all() else positions(mask)[:, start:end],
            use_cache=True,
            **with_cache(model, cache),
        )
        logits.append(output.logits)
        start = end
    return torch.cat(logits, dim=1)


def assert_same(
    got: torch.Tensor,
    expected: torch.Tensor,
    context: str,
    mask: torch.Tensor = EVERY_TOKEN,
    operation: str = "reference",
) -> None:
    """Raise AssertionError unless the logits agree as those of two correct computations do."""
    dtype = _PRECISION[expected.dtype]
    assert_logits_close(got, expected, dtype=dtype, operation=operation, context=context, mask=mask)


def differ(got: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor = EVERY_TOKEN) -> bool:
    """Return whether logits are farther apart than those of two correct computations."""
    try:
        assert_same(got, expected, "differ", mask)
    except AssertionError:
        return True
    return False


def stored_bytes(checkpoint: Path) -> int:
    """Return the bytes of all safetensors files."""
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


def resident_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of all parameters that are not on the meta device."""
    return sum(each.numel() * each.element_size() for each in model.parameters() if not each.is_meta)
