"""How far the logits of two correct computations may be apart: one table, by precision and operation.

Every number is relative to the largest absolute logit of the reference. It was measured on 200 tiny random Qwen3
models for each precision (transformers 5.23.0, CPU, one thread): the largest deviation seen is beside each number,
which is four to six times that. Where none was seen at all, the number allows for a few roundings of the precision.
"""

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

PRECISIONS = ("float32", "bfloat16", "8bit", "4bit")


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of a logit, `relative` to the largest absolute reference logit, and the `reason`."""

    relative: float
    reason: str


def _row(reason: str, **numbers: tuple[float, float]) -> dict[str, Tolerance]:
    """Return a row of the table from `precision=(allowed, largest seen)`."""
    return {
        precision.removeprefix("in_"): Tolerance(allowed, f"{reason}; at most {seen:.2g} was seen in correct models")
        for precision, (allowed, seen) in numbers.items()
    }


_SAME_KERNELS = "the same kernels on the same values, so a few roundings at most"
_CACHED = "attention over a cache runs on other shapes, so sums are rounded in another order"
_PADDED = "padding shifts positions and shapes, so rotations and sums are rounded differently"
_KERNELS = "another kernel computes the same sums in another order"
_QUANTISED = (
    "; 8-bit also rounds by the largest activation of what runs together (bitsandbytes 0.50.2, LLM.int8)"
)

_TABLE = MappingProxyType(
    {
        "surgery": _row(
            "surgery only moves bytes", in_float32=(0, 0), in_bfloat16=(0, 0), in_8bit=(0, 0), in_4bit=(0, 0)
        ),
        "reference": _row(_SAME_KERNELS, in_float32=(2e-6, 0), in_bfloat16=(1e-2, 0), in_8bit=(1e-2, 0), in_4bit=(1e-2, 0)),
        "zero_weight": _row(_SAME_KERNELS + ", and adding zero is exact", in_float32=(2e-6, 0), in_bfloat16=(1e-2, 0)),
        "offload": _row(_SAME_KERNELS, in_float32=(2e-6, 0), in_bfloat16=(1e-2, 0)),
        "cached": _row(
            _CACHED + _QUANTISED,
            in_float32=(1e-5, 2.0e-6), in_bfloat16=(0.08, 0.017), in_8bit=(0.2, 0.047), in_4bit=(0.07, 0.014),
        ),
        "static_cache": _row(
            _CACHED + _QUANTISED,
            in_float32=(1e-5, 1.6e-6), in_bfloat16=(0.1, 0.023), in_8bit=(0.2, 0.048), in_4bit=(0.07, 0.014),
        ),
        "padding": _row(
            _PADDED + _QUANTISED,
            in_float32=(1e-5, 1.8e-6), in_bfloat16=(0.17, 0.042), in_8bit=(0.35, 0.083), in_4bit=(0.13, 0.03),
        ),
        "attention_implementation": _row(
            _KERNELS + _QUANTISED,
            in_float32=(1e-5, 1.1e-6), in_bfloat16=(0.16, 0.038), in_8bit=(0.25, 0.062), in_4bit=(0.1, 0.025),
        ),
        "compile": _row(_KERNELS, in_float32=(1e-5, 1.1e-6), in_bfloat16=(0.16, 0.038)),
    }
)  # fmt: skip


def tolerance(dtype: str, operation: str) -> Tolerance:
    """Return the entry of the table; raises KeyError, in one line, for a pair that it does not hold."""
    row = _TABLE.get(operation)
    if row is None:
        raise KeyError(f"operation={operation!r} is not in the table of tolerances, which has {sorted(_TABLE)}")
    if dtype not in row:
        raise KeyError(f"dtype={dtype!r} is not in the table of tolerances for {operation!r}, which has {sorted(row)}")
    return row[dtype]


def assert_logits_close(
    got: Tensor, expected: Tensor, *, dtype: str, operation: str, context: str, mask: Tensor | None = None
) -> None:
    """Raise AssertionError unless `got` is `expected`, both (batch, tokens, vocabulary), within the tolerance.

    `mask` is (batch, tokens), true where tokens are compared, all without it. `context` says how `got` was computed.
    NaN and infinity fail wherever they are compared, in either tensor.
    """
    __tracebackhide__ = True
    if got.shape != expected.shape:
        raise AssertionError(f"logits.shape={tuple(got.shape)}, but should be {tuple(expected.shape)} [{context}]")
    allowed = tolerance(dtype, operation)
    got, expected = got.detach().float().cpu(), expected.detach().float().cpu()
    compared = torch.ones(got.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
    if not compared.any():
        raise AssertionError(f"no token is compared: the mask is empty [{context}]")
    if not torch.isfinite(expected[compared]).all():
        raise AssertionError(f"the expected logits hold NaN or infinity, so nothing can be compared [{context}]")
    limit = allowed.relative * float(expected[compared].abs().max())
    difference = (got - expected).abs()
    off = ~(difference <= limit) & compared[..., None]  # not within, rather than beyond: NaN is neither
    if not off.any():
        return
    shown = torch.where(off, difference.nan_to_num(nan=float("inf")), -1.0)
    batch, token, index = (int(part) for part in torch.unravel_index(shown.argmax(), shown.shape))
    share = float(off[compared].float().mean())
    raise AssertionError(
        f"logits[{batch}, {token}, {index}]={float(got[batch, token, index]):.6g}, "
        f"but should be {float(expected[batch, token, index]):.6g} [{context}]: {share:.2%} of the logits are off, "
        f"largest difference {float(shown.max()):.3g}, allowed {limit:.3g} "
        f"({allowed.relative:g} of the largest logit, dtype={dtype}, operation={operation}: {allowed.reason})"
    )
