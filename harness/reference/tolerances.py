"""How far the logits of two correct computations may be apart: one table, by precision and operation.

Every number is relative to the largest absolute logit of the reference. Measured on the CPU, on 200 tiny random Qwen3
models for each precision (transformers 5.23.0; 30 each on 5.0.0 and 4.57.6) and on the real checkpoint: the largest
deviation seen stands beside each number, which is four to six times that. Where none was seen at all, the number
allows for two or three roundings of bfloat16.

The wide rows of bfloat16 and of quantised models are rounding noise, not licence: one sub-layer of the real checkpoint
moves the logits by as little as 0.1. What must notice that compares to the reference over the same kind of cache and
padding, where the row `reference` holds.
"""

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """The largest difference of a logit, `relative` to the largest absolute reference logit, and the `reason`."""

    relative: float
    reason: str


# The names of the keyword arguments below cannot begin with a digit.
_PRECISION = {"float32": "float32", "bfloat16": "bfloat16", "int8": "8bit", "int4": "4bit"}


def _row(reason: str, **numbers: tuple[float, float]) -> dict[str, Tolerance]:
    """Return a row of the table from `precision=(allowed, largest seen)`."""
    return {
        _PRECISION[name]: Tolerance(allowed, f"{reason}; at most {seen:.2g} was seen in correct models")
        for name, (allowed, seen) in numbers.items()
    }


_SAME_KERNELS = "the same kernels on the same values, though at other addresses: a few roundings"
_CACHED = "attention over a cache runs on other shapes, so sums are rounded in another order"
_PADDED = "padding shifts positions and shapes, so rotations and sums are rounded differently"
_KERNELS = "another kernel computes the same sums in another order"
# bitsandbytes 0.50.2, LLM.int8: each row is scaled by its largest value, and columns with outliers anywhere in the
# batch are computed in float16. So what runs together decides how it is rounded.
_ROUNDED_TOGETHER = "; in 8-bit the rounding also depends on what runs together"

_TABLE = MappingProxyType(
    {
        "surgery": _row("surgery only moves bytes", float32=(0, 0), bfloat16=(0, 0), int8=(0, 0), int4=(0, 0)),
        "reference": _row(_SAME_KERNELS, float32=(1e-5, 2.0e-6), bfloat16=(1e-2, 0), int8=(1e-2, 0), int4=(1e-2, 0)),
        "zero_weight": _row(f"{_SAME_KERNELS}; adding zero is exact", float32=(1e-5, 2.0e-6), bfloat16=(1e-2, 0)),
        "offload": _row(_SAME_KERNELS, float32=(1e-5, 2.0e-6), bfloat16=(1e-2, 0)),
        "cached": _row(
            _CACHED + _ROUNDED_TOGETHER,
            float32=(2e-5, 3.7e-6), bfloat16=(0.1, 0.022), int8=(0.4, 0.090), int4=(0.12, 0.029),
        ),
        "static_cache": _row(
            _CACHED + _ROUNDED_TOGETHER,
            float32=(2e-5, 3.7e-6), bfloat16=(0.1, 0.023), int8=(0.4, 0.086), int4=(0.12, 0.024),
        ),
        "padding": _row(
            _PADDED + _ROUNDED_TOGETHER,
            float32=(2e-5, 2.8e-6), bfloat16=(0.17, 0.042), int8=(0.9, 0.22), int4=(0.13, 0.034),
        ),
        "attention_implementation": _row(
            _KERNELS + _ROUNDED_TOGETHER,
            float32=(1e-5, 2.4e-6), bfloat16=(0.25, 0.058), int8=(0.4, 0.10), int4=(0.5, 0.12),
        ),
        "compile": _row(_KERNELS, float32=(1e-5, 1.8e-6), bfloat16=(0.16, 0.038)),
        "conversion": _row(
            "from a Llama to the Qwen3 architecture: a norm with a constant divisor, up to a share of 1e-6",
            float32=(1.5e-5, 2.7e-6),
        ),
    }
)  # fmt: skip


def tolerance(dtype: str, operation: str) -> Tolerance:
    """Return the entry of the table; raises LookupError, in one line, for a pair that it does not hold."""
    row = _TABLE.get(operation)
    if row is None:
        raise LookupError(f"operation={operation!r} is not in the table of tolerances, which has {sorted(_TABLE)}")
    if dtype not in row:
        raise LookupError(
            f"dtype={dtype!r} is not in the table of tolerances for {operation!r}, which has {sorted(row)}"
        )
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
