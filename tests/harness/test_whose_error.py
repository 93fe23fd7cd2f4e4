"""Whose error it is: a model's, which is looked for, or one of ours, which must not be blamed on it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.checks.check import Check, FaultFound
from harness.checks.explain import logits as explain
from harness.checks.loaded import candidate, logits, running
from harness.checks.loaded.candidate import candidate_logits, candidate_runs, reference_fails
from harness.errors import NotChecked
from harness.judge.runner import run_check
from harness.models import forward
from harness.models.forward import uncached_logits, unpadded
from harness.models.modes import LoadingMode
from harness.models.session import Session
from harness.subject.subject import read_subject
from harness.system.libraries import quiet_libraries
from harness.system.whose_error import ignoring_errors_of, raised_by

Pair = tuple[Path, Path]


class Broken(nn.Module):
    """A model whose inner module raises."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2))

    def forward(self, values: Any) -> Any:
        """Call the inner module, which wants two numbers."""
        return self.inner(values)

    def generate(self) -> None:
        """Raise."""
        raise ValueError("no generation")

    @classmethod
    def from_pretrained(cls) -> None:
        """Raise."""
        raise ValueError("no load")


def error_of(act: Callable[[], Any]) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:
        act()
    return caught.value


@pytest.mark.parametrize(
    "act",
    [
        lambda model: model(torch.ones(3)),
        lambda model: model("text"),
        lambda model: model.generate(),
        lambda model: model.from_pretrained(),
        lambda model: torch.no_grad()(model.forward)(torch.ones(3)),
        lambda model: uncached_logits(model, unpadded(torch.ones(1, 1))),
    ],
)
def test_errors_of_a_model(act: Callable[[Any], Any]) -> None:
    """What is raised in a method of a model, of its class or of a module of it, is its own, and not another model's."""
    model, other = Broken(), Broken()
    if act.__code__.co_names[:1] == ("uncached_logits",):
        model.get_input_embeddings = lambda: model.inner[0]  # type: ignore[operator]
    error = error_of(lambda: act(model))
    assert raised_by(error, model)
    assert raised_by(error, other) == ("from_pretrained" in act.__code__.co_names)  # of the same class
    assert not raised_by(error, nn.Linear(1, 1))


def test_errors_of_ours() -> None:
    """What is raised by us, or by a library that we call wrongly, is no model's: before it, behind it, or in a hook."""
    model = Broken()
    with pytest.raises(AttributeError) as before:
        uncached_logits(model, unpadded(torch.ones(1, 1)))  # which has no embedding to ask for its device
    assert raised_by(before.value, model)  # nn.Module.__getattr__ is the model's
    library = error_of(lambda: json.loads("{"))
    assert not raised_by(library, model)
    record = forward.layer_outputs

    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Identity()])

        def forward(self, values: Any) -> Any:
            return self.layers[0](values)

    layered = Layered()
    with record(layered):
        hook = error_of(lambda: layered(None))  # the hook detaches what a layer puts out
    assert not raised_by(hook, layered)


def test_ignoring() -> None:
    """What a model raises is passed over, and all else is raised."""
    model = Broken()
    with ignoring_errors_of(model):
        model.generate()
    with pytest.raises(ZeroDivisionError), ignoring_errors_of(model):
        _ = 1 / 0


@pytest.fixture(scope="module")
def pair(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture
def session(pair: Pair, tmp_path: Path) -> Iterator[Session]:
    """Both models, loaded plainly in float32."""
    subject = read_subject(pair[1], pair[0], None, trust_remote_code=True)
    with quiet_libraries():
        session = Session(subject, LoadingMode("plain", "float32"), tmp_path)
        yield session
        session.close()


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that raises."""

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


def test_candidate_that_raises(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the candidate's forward raises is its fault, SystemExit too; a second load of it is the candidate."""
    for error in (RuntimeError("broken"), SystemExit(0)):
        monkeypatch.setattr(session.model.model.layers[0].mlp, "forward", raising(error))  # type: ignore[arg-type]
        with pytest.raises(FaultFound) as caught, candidate_runs(session):
            session.model(torch.ones((1, 2), dtype=torch.long))
        assert [each.id for each in caught.value.faults] == ["forward-raises"]
        monkeypatch.undo()
    again = session.load_again()
    monkeypatch.setattr(again.model.layers[0].mlp, "forward", raising(RuntimeError("broken")))
    with pytest.raises(FaultFound), candidate_runs(session, model=again):
        again(torch.ones((1, 2), dtype=torch.long))


def test_ours_is_no_fault_of_the_candidate(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours within what the candidate runs is an error, whether or not it strikes the reference alike."""
    with pytest.raises(KeyError), candidate_runs(session):
        {}["planted"]
    monkeypatch.setattr(candidate, "uncached_logits", raising(KeyError("planted")))
    for run in (lambda each: candidate_logits(each, unpadded(torch.ones((1, 2), dtype=torch.long))), running.poison):
        record, _ = run_check(Check("poison", run), session)
        assert (record.outcome, record.reason) == ("error", "KeyError: 'planted'")


@pytest.mark.parametrize("put_out", [lambda output: (output.logits,), lambda output: None, lambda output: object()])
def test_output_without_logits(
    session: Session, put_out: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward pass that puts out no logits is the candidate's fault, though it is we who stumble over it."""
    forward_of = session.model.forward
    monkeypatch.setattr(session.model, "forward", lambda *args, **kwargs: put_out(forward_of(*args, **kwargs)))
    with pytest.raises(FaultFound):
        candidate_logits(session, unpadded(torch.ones((1, 2), dtype=torch.long)))


def test_reference_that_fails_alike(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the untouched stock model runs, there is nothing to check, and a finding says what it raises."""
    assert reference_fails(session) is None
    for model in (session.model, session.reference):
        monkeypatch.setattr(model.model.layers[0].mlp, "forward", raising(RuntimeError("odd size")))  # type: ignore[union-attr]
    assert reference_fails(session) == "RuntimeError: odd size"
    with pytest.raises(NotChecked, match="cannot run the unpruned model as plain-float32: RuntimeError: odd size"):
        candidate_logits(session, unpadded(torch.ones((1, 2), dtype=torch.long)))
    assert "RuntimeError: odd size" in session.subject.findings[-1]


def test_reference_alone_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reference alone raises, nothing is decided; a bug of ours as it runs is an error."""
    assert session.model is not None
    monkeypatch.setattr(session.reference.model.layers[0].mlp, "forward", raising(RuntimeError("odd size")))  # type: ignore[union-attr]
    record, _ = run_check(Check("logits", lambda each: logits.identity(each, kind="random")), session)
    assert record.outcome == "undecided"
    assert "RuntimeError: odd size" in (record.reason or "")
    monkeypatch.undo()

    @contextmanager
    def crashing() -> Iterator[Any]:
        raise KeyError("planted")
        yield

    monkeypatch.setattr(session, "pruned_reference", crashing)
    record, _ = run_check(Check("logits", lambda each: logits.identity(each, kind="random")), session)
    assert (record.outcome, record.reason) == ("error", "KeyError: 'planted'")


def test_explanation_that_crashes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in an explanation is an error, in place of another explanation."""
    monkeypatch.setattr(explain, "another_class", raising(KeyError("planted")))
    monkeypatch.setattr(session.model.model.layers[0].mlp, "forward", lambda hidden: hidden)
    record, _ = run_check(Check("logits", lambda each: logits.identity(each, kind="random")), session)
    assert (record.outcome, record.reason) == ("error", "KeyError: 'planted'")
