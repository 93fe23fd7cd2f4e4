"""The comparison of logits: sound models pass, planted faults are seen, and the message says what is off."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.reference.models import identity_reference, reference_logits
from harness.reference.tolerances import Tolerance, assert_logits_close, tolerance
from harness.strategies import Dtype
from harness.tiny import TinySpec, write_tiny_checkpoint

IDS = torch.tensor([[5, 9, 33, 2, 60, 17, 8, 41, 3], [7, 7, 12, 50, 1, 28, 63, 4, 19]])  # (2, 9)
SELF_ATTN, MLP = (0, 2), (1, 2)
OPERATIONS = {
    "float32": ("reference", "zero_weight", "offload", "cached", "static_cache", "padding", "compile"),
    "bfloat16": ("reference", "zero_weight", "offload", "cached", "static_cache", "padding", "compile"),
    "8bit": ("reference", "cached", "static_cache", "padding"),
    "4bit": ("reference", "cached", "static_cache", "padding"),
}
PAIRS = [(dtype, operation) for dtype, operations in OPERATIONS.items() for operation in operations]

each_pair = pytest.mark.parametrize(("dtype", "operation"), PAIRS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@pytest.fixture
def expected() -> torch.Tensor:
    """Finite logits, float32 (2, 3, 5), whose largest absolute value is 8."""
    logits = torch.linspace(-8, 7, 30).reshape(2, 3, 5)
    logits[0, 0, 0] = -8
    return logits


@pytest.fixture
def base(tmp_path: Path, dtype: Dtype) -> Path:
    """A tiny checkpoint of the test's precision, with sliding and full layers."""
    return write_tiny_checkpoint(TinySpec(layer_types="mixed", dtype=dtype), tmp_path / "base")


def test_an_entry_has_its_number_and_reason() -> None:
    """The table answers with a frozen record of number and reason; moving bytes is allowed no difference."""
    for dtype, operation in PAIRS:
        entry = tolerance(dtype, operation)
        assert 0 < entry.relative < 1
        assert re.search(r"seen", entry.reason)
    for dtype in OPERATIONS:
        assert tolerance(dtype, "surgery").relative == 0
    assert Tolerance(0.5, "half") == Tolerance(0.5, "half")
    with pytest.raises(AttributeError):
        tolerance("float32", "cached").relative = 1.0  # type: ignore[misc]  # what mypy forbids is what is tested


@pytest.mark.parametrize(
    ("dtype", "operation", "named"),
    [
        pytest.param("float32", "telepathy", "operation='telepathy'", id="operation"),
        pytest.param("float16", "cached", "dtype='float16'", id="dtype"),
        pytest.param("8bit", "zero_weight", "dtype='8bit'", id="pair"),
    ],
)
def test_unknown_pairs(dtype: str, operation: str, named: str) -> None:
    """A pair that is not in the table is refused in one line that names what is unknown."""
    with pytest.raises(LookupError) as raised:
        tolerance(dtype, operation)
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


@each_pair
def test_the_tolerance_is_a_line(expected: torch.Tensor, dtype: str, operation: str) -> None:
    """One element off by nine tenths of the tolerance passes; by eleven tenths or by twenty times, it does not."""
    limit = tolerance(dtype, operation).relative * 8
    for factor, passes in ((0.9, True), (-0.9, True), (1.1, False), (-1.1, False), (20, False)):
        got = expected.clone()
        got[1, 1, 1] += factor * limit
        if passes:
            assert_logits_close(got, expected, dtype=dtype, operation=operation, context="planted")
        else:
            with pytest.raises(AssertionError, match=r"^logits\[1, 1, 1\]="):
                assert_logits_close(got, expected, dtype=dtype, operation=operation, context="planted")


def test_surgery_is_bit_exact(expected: torch.Tensor) -> None:
    """Where bytes are only moved, equal logits pass and the smallest difference is seen."""
    assert_logits_close(expected.clone(), expected, dtype="float32", operation="surgery", context="copied")
    got = expected.clone()
    got[0, 2, 4] = torch.nextafter(got[0, 2, 4], torch.tensor(9.0))
    with pytest.raises(AssertionError, match=r"^logits\[0, 2, 4\]="):
        assert_logits_close(got, expected, dtype="float32", operation="surgery", context="copied")


def test_the_message(expected: torch.Tensor) -> None:
    """A failure shows the worst element, the context, the share, the largest difference and the tolerance's reason."""
    got = expected.clone()
    got[0, 1, 2] += 0.5
    got[1, 2, 3] -= 2
    with pytest.raises(AssertionError) as raised:
        assert_logits_close(got, expected, dtype="float32", operation="cached", context="layer 3, steps")
    message = str(raised.value)
    assert message.startswith(
        f"logits[1, 2, 3]={float(got[1, 2, 3]):.6g}, but should be {float(expected[1, 2, 3]):.6g} [layer 3, steps]"
    )
    assert "6.67%" in message  # 2 of 30
    assert "difference 2" in message
    assert tolerance("float32", "cached").reason in message
    assert "\n" not in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_non_finite_logits(expected: torch.Tensor, bad: float) -> None:
    """NaN or infinity fails on either side, and even on both at once; the widest tolerance makes no difference."""
    broken = expected.clone()
    broken[0, 1, 3] = bad
    for got, should_be in ((broken, expected), (expected, broken), (broken, broken.clone())):
        with pytest.raises(AssertionError):
            assert_logits_close(got, should_be, dtype="8bit", operation="padding", context="planted")
    with pytest.raises(AssertionError, match=r"^logits\[0, 1, 3\]=(nan|-?inf), but should be "):
        assert_logits_close(broken, expected, dtype="8bit", operation="padding", context="planted")


def test_shapes(expected: torch.Tensor) -> None:
    """Shapes have to be equal, also where one would broadcast to the other."""
    for got in (expected[:1], expected[..., :4], expected[:, :1]):
        with pytest.raises(AssertionError) as raised:
            assert_logits_close(got, expected, dtype="float32", operation="cached", context="planted")
        assert str(raised.value) == f"logits.shape={tuple(got.shape)}, but should be (2, 3, 5) [planted]"


def test_masked_tokens(expected: torch.Tensor) -> None:
    """What the mask leaves out is not compared, and a mask that leaves nothing is a failure."""
    got, mask = expected.clone(), torch.ones(2, 3, dtype=torch.long)
    got[0, 0] = torch.nan
    mask[0, 0] = 0
    assert_logits_close(got, expected, dtype="float32", operation="cached", context="padded", mask=mask)
    got[0, 1, 0] += 1
    with pytest.raises(AssertionError, match=r"^logits\[0, 1, 0\]="):
        assert_logits_close(got, expected, dtype="float32", operation="cached", context="padded", mask=mask)
    with pytest.raises(AssertionError, match=r"^no token is compared"):
        assert_logits_close(got, expected, dtype="float32", operation="cached", context="padded", mask=mask * 0)


def test_its_own_frame_is_hidden(pytester: pytest.Pytester) -> None:
    """The traceback of a failed comparison ends in the test that made it."""
    pytester.makepyfile(
        """
        import torch
        from harness.reference.tolerances import assert_logits_close

        def test_it():
            ones = torch.ones(1, 1, 2)
            assert_logits_close(ones, 2 * ones, dtype="float32", operation="cached", context="planted")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*logits[[]0, 0, 0[]]=1, but should be 2 [[]planted[]]*"])
    result.stdout.no_fnmatch_line("*tolerances.py*")


@each_dtype
@pytest.mark.parametrize(
    ("self_attn", "mlp"),
    [
        pytest.param((0, 2, 3), MLP, id="one-attention-too-many"),
        pytest.param(SELF_ATTN, (1, 2, 3), id="one-mlp-too-many"),
        pytest.param((2,), MLP, id="one-attention-too-few"),
        pytest.param(SELF_ATTN, (2,), id="one-mlp-too-few"),
        pytest.param((1, 3), (2, 3), id="off-by-one-layer"),
        pytest.param(MLP, SELF_ATTN, id="exchanged"),
        pytest.param((1, 3), (0, 3), id="inverted"),
        pytest.param((), (), id="ignored"),
    ],
)
@pytest.mark.parametrize("operation", ["reference", "padding"], ids=["tightest", "widest"])
def test_another_plan_is_seen(
    base: Path, dtype: str, operation: str, self_attn: tuple[int, ...], mlp: tuple[int, ...]
) -> None:
    """Another plan than the one that was meant is seen under the tightest and the widest tolerance."""
    expected = reference_logits(identity_reference(base, SELF_ATTN, MLP, dtype=getattr(torch, dtype)), IDS)
    got = reference_logits(identity_reference(base, self_attn, mlp, dtype=getattr(torch, dtype)), IDS)
    with pytest.raises(AssertionError, match=r"^logits\["):
        assert_logits_close(got, expected, dtype=dtype, operation=operation, context="another plan")


@each_dtype
def test_an_added_norm_is_seen(base: Path, dtype: str) -> None:
    """An identity in place of a pruned MLP, which makes the stock layer add its norm, h + norm(h), is seen."""
    expected = reference_logits(identity_reference(base, (), (1,), dtype=getattr(torch, dtype)), IDS)
    model = identity_reference(base, (), (), dtype=getattr(torch, dtype))
    model.get_submodule("model.layers.1").mlp = nn.Identity()
    with pytest.raises(AssertionError, match=r"^logits\["):
        assert_logits_close(
            reference_logits(model, IDS), expected, dtype=dtype, operation="reference", context="norm added"
        )


@each_dtype
def test_nan_weights_are_seen(base: Path, dtype: str) -> None:
    """A kept module with a single weight NaN is seen."""
    expected = reference_logits(identity_reference(base, SELF_ATTN, MLP, dtype=getattr(torch, dtype)), IDS)
    model = identity_reference(base, SELF_ATTN, MLP, dtype=getattr(torch, dtype))
    with torch.no_grad():
        next(model.get_submodule("model.layers.3.mlp.up_proj").parameters())[0, 0] = torch.nan
    with pytest.raises(AssertionError, match=r"=nan, but should be "):
        assert_logits_close(
            reference_logits(model, IDS), expected, dtype=dtype, operation="padding", context="poisoned"
        )


@each_dtype
def test_sound_variants_pass(base: Path, dtype: str) -> None:
    """Two loads are equal to the last bit, and the other attention implementation is within the tolerance."""
    model, again, eager = (
        identity_reference(base, SELF_ATTN, MLP, dtype=getattr(torch, dtype), attn_implementation=implementation)
        for implementation in ("sdpa", "sdpa", "eager")
    )
    expected = reference_logits(model, IDS)
    assert_logits_close(
        reference_logits(again, IDS), expected, dtype=dtype, operation="surgery", context="loaded again"
    )
    assert_logits_close(
        reference_logits(eager, IDS),
        expected,
        dtype=dtype,
        operation="attention_implementation",
        context="eager against sdpa",
    )
