"""A reference that fails its own test decides nothing, and says so."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import Cache
from transformers.models.qwen3 import modeling_qwen3

from harness.judge.judge import check_checkpoint
from harness.models.session import Session
from harness.reference import models as references
from harness.report.report import Report
from tests.harness.checks.cases import Case

pytestmark = pytest.mark.outermost

CACHE = "dynamic and (one-step or beam)"


def _judged(case: Case, keyword: str, **options: Any) -> Report:
    return check_checkpoint(
        case.sound,
        base=case.base,
        keyword=keyword,
        device_map=("plain",),
        dtype=("float32",),
        quantisation=(),
        **options,
    )


def _outcomes(report: Report) -> set[tuple[str, str]]:
    return {(check.name.removeprefix("plain-float32."), check.outcome) for check in report.checks}


def _forgetting_attention(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let an attention see, in single steps, nothing but the token at hand."""

    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        caches = [name for name, value in kwargs.items() if isinstance(value, Cache)]
        tokens = next(each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)).shape[1]
        if tokens == 1 and caches:
            kwargs |= dict.fromkeys((*caches, "attention_mask"))
        return forward(self, *args, **kwargs)

    return forgetful


def test_what_upstream_computes_wrong_is_a_finding(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: where the stock model decodes wrong by itself, the check is undecided, and upstream is named."""
    attention = modeling_qwen3.Qwen3Attention
    monkeypatch.setattr(attention, "forward", _forgetting_attention(attention.forward))
    report = _judged(case("tied"), CACHE)
    assert _outcomes(report) == {("cache.dynamic.one-step-at-a-time", "undecided"), ("cache.dynamic.beam", "undecided")}
    assert report.verdict == "undecided"
    assert len(report.findings) == 2
    for finding in report.findings:
        assert finding.startswith("transformers ")
        assert "computes wrong by itself: the untouched Qwen3ForCausalLM, " in finding
        assert "dynamic cache" in finding


def test_a_reference_that_is_wrong_alone_decides_nothing(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a reference whose hooks are wrong in single steps is not upstream's fault, and condemns nobody."""
    silence = references._put_out_zeros

    def loud_in_steps(module: Any, arguments: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        return output if hidden.shape[1] == 1 else silence(module, arguments, output)

    monkeypatch.setattr(references, "_put_out_zeros", loud_in_steps)
    report = _judged(case("tied"), CACHE)
    assert {check.outcome for check in report.checks} == {"undecided"}
    assert report.findings == ()
    assert all("the reference fails its own test" in str(check.reason) for check in report.checks)


@pytest.mark.parametrize("keyword", ["logits.identity.random", "cache.dynamic.long"])
def test_references_that_disagree_decide_nothing(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    """Planted: where the zero-weight reference computes something else, nothing is decided."""
    genuine = Session.zero_weight_reference

    @contextmanager
    def louder(session: Session) -> Any:
        with genuine(session) as reference:
            head = reference.get_output_embeddings()
            handle = head.register_forward_hook(lambda module, args, output: output * 1.1)
            try:
                yield reference
            finally:
                handle.remove()

    monkeypatch.setattr(Session, "zero_weight_reference", louder)
    report = _judged(case("tied"), keyword)
    assert [check.outcome for check in report.checks] == ["undecided"]
    assert "the two references disagree" in str(report.checks[0].reason)


def test_words_that_the_reference_does_not_mean(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a reference that chooses tokens by other logits than it has without a cache says nothing of a text."""
    attention = modeling_qwen3.Qwen3Attention
    monkeypatch.setattr(attention, "forward", _forgetting_attention(attention.forward))
    report = _judged(case("tied"), "text.greedy")
    assert [check.outcome for check in report.checks] == ["undecided"]


def test_a_sound_checkpoint_passes_the_same_checks(case: Callable[[str], Case]) -> None:
    """With references that are right the very same checks pass."""
    report = _judged(case("tied"), f"({CACHE}) or logits.identity.random or dynamic.long or text.greedy")
    assert {check.outcome for check in report.checks} == {"passed"}
