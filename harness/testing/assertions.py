"""Assertions for people's own tests: each failure says what was got, what should be, and how it was called."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from harness.errors import CannotRun
from harness.judge.judge import check_checkpoint, check_model
from harness.models.forward import NEW_CACHE, TokenBatch, cached_logits, uncached_logits
from harness.models.modes import mode_of
from harness.reference.stored_bytes import differing_tensor, stored_keys
from harness.reference.tolerances import assert_logits_close
from harness.report.report import Report

__all__ = [
    "assert_cache_agrees",
    "assert_logits_close",
    "assert_model_sound",
    "assert_same_logits",
    "assert_sound",
    "assert_stored_as_planned",
]


def assert_sound(checkpoint: str | Path, **arguments: Any) -> Report:
    """Judge a checkpoint and raise AssertionError unless it is sound; the arguments are those of `check_checkpoint`."""
    __tracebackhide__ = True
    return _require_sound(check_checkpoint(checkpoint, **arguments))


def assert_model_sound(model: Any, **arguments: Any) -> Report:
    """Judge a loaded model and raise AssertionError unless it is sound; the arguments are those of `check_model`."""
    __tracebackhide__ = True
    return _require_sound(check_model(model, **arguments))


def assert_stored_as_planned(
    checkpoint: str | Path, base: str | Path, *, self_attn: Collection[int] = (), mlp: Collection[int] = ()
) -> None:
    """Raise AssertionError unless `checkpoint` stores the base's tensors less those sub-layers', byte for byte.

    Raises CannotRun if one of the two holds no tensors, as a directory that is not there.
    """
    __tracebackhide__ = True
    for directory in (checkpoint, base):
        if not stored_keys(Path(directory)):
            raise CannotRun(f"{directory} holds no tensors: name a directory with *.safetensors files")
    problem = differing_tensor(Path(checkpoint), Path(base), self_attn, mlp)
    if problem is not None:
        called = f"checkpoint={str(checkpoint)!r}, base={str(base)!r}, self_attn={list(self_attn)}, mlp={list(mlp)}"
        raise AssertionError(f"{problem} [{called}]")


def assert_same_logits(
    model: Any, reference: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> None:
    """Raise AssertionError unless `model` gives the equally loaded `reference`'s logits, uncached.

    `input_ids` and `attention_mask` are integer (batch, tokens); padding is on the left, and is not compared.
    """
    __tracebackhide__ = True
    batch = _batch(input_ids, attention_mask)
    mode = mode_of(model)
    assert_logits_close(
        uncached_logits(model, batch),
        uncached_logits(reference, batch),
        dtype=mode.precision,
        operation="reference",
        context=f"{_described(model, batch)}, against {type(reference).__name__}",
        mask=batch.mask,
    )


def assert_cache_agrees(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    kind: str = "dynamic",
    prefill: int = 1,
) -> None:
    """Raise AssertionError unless prefill and single steps through a KV cache give the logits of one uncached pass.

    `kind` is "dynamic" or "static"; `prefill` is how many tokens go in first. For padding, see `assert_same_logits`.
    """
    __tracebackhide__ = True
    batch = _batch(input_ids, attention_mask)
    tokens = batch.ids.shape[1]
    if kind not in NEW_CACHE or not 1 <= prefill <= tokens:
        raise ValueError(
            f"kind must be one of {sorted(NEW_CACHE)} and prefill in 1 to {tokens}, but got {kind=}, {prefill=}"
        )
    got, _ = cached_logits(model, batch, NEW_CACHE[kind](model, tokens), (prefill, *[1] * (tokens - prefill)))
    assert_logits_close(
        got,
        uncached_logits(model, batch),
        dtype=mode_of(model).precision,
        operation="static_cache" if kind == "static" else "cached",
        context=f"{_described(model, batch)}, {kind} cache, prefill {prefill}, then one token at a time",
        mask=batch.mask,
    )


def _require_sound(report: Report) -> Report:
    __tracebackhide__ = True
    if report.verdict == "sound":
        return report
    lines = [f"{report.checkpoint} is {report.verdict}, but should be sound [base={report.base}, plan={report.plan}]"]
    for fault in report.faults:
        lines += [f"  {fault.family}: {fault.cause}", *(f"    {text}" for text in fault.evidence)]
        lines.append(f"    {fault.remedy}")
    lines += [f"  crashed: {check.name}: {check.reason}" for check in report.checks if check.outcome == "error"]
    if report.verdict == "undecided":
        words = {"undecided": "could not decide", "skipped": "not checked"}
        lines += [
            f"  {words[check.outcome]}: {check.name}: {check.reason}"
            for check in report.checks
            if check.outcome in words
        ]
    raise AssertionError("\n".join(lines))


def _batch(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> TokenBatch:
    return TokenBatch(input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask)


def _described(model: Any, batch: TokenBatch) -> str:
    return f"{type(model).__name__}, {model.dtype}, {model.device}, batch {list(batch.ids.shape)}"
