"""A check that crashes is never sound: whichever it is, and however it is run."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import assert_sound
from harness.checks.check import Check, FaultFound, Numbers, fault
from harness.errors import NotChecked, Undecided
from harness.judge import judge
from harness.judge.all_checks import checks
from harness.judge.judge import check_checkpoint, check_model
from harness.judge.runner import run_check
from harness.models.modes import LoadingMode
from harness.report.junit import junit_xml
from harness.report.report import Report
from harness.report.report_page import report_page
from harness.system.libraries import quiet_libraries
from harness.system.signals import Ended
from pruning import load_pruned
from tests.harness.command_line import run
from tests.plugin.running import outcomes, run_suite

pytestmark = pytest.mark.newest

Pair = tuple[Path, Path]

MODES = [
    LoadingMode("plain", "float32"),
    LoadingMode("plain", "8bit"),
    LoadingMode("disk-beside", "float32"),
    LoadingMode("disk-all", "float32"),
]
GIVEN = [LoadingMode("given", "float32"), LoadingMode("disk-given", "float32")]
LAST_LINE = "KeyError: 'planted'"
WORDS = f"crashed: {LAST_LINE}"


def crash(target: Any) -> Numbers:
    """Raise what nobody expects."""
    raise KeyError("planted")


def die(target: Any) -> Numbers:
    """End the process in which a check runs, as a crash in C does."""
    os._exit(0)


def passing(target: Any) -> Numbers:
    """Find nothing."""
    return None


def every(modes: list[LoadingMode], *, given: bool = False) -> list[Check]:
    """Every check that there is in these modes."""
    return list(checks(modes, given=given, too_large=()))


def names(modes: list[LoadingMode], *, given: bool = False) -> list[str]:
    """The names of every check."""
    return [check.name for check in every(modes, given=given)]


def stubs(modes: list[LoadingMode], runs: dict[str, Callable[[Any], Numbers]], *, given: bool = False) -> list[Check]:
    """Stubs of every check: each passes but those of `runs`, by name."""
    return [Check(check.title, runs.get(check.name, passing), check.mode) for check in every(modes, given=given)]


@pytest.fixture(scope="module")
def pair(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture(scope="module")
def model(pair: Pair) -> Any:
    """The sound checkpoint, loaded."""
    with quiet_libraries():
        return load_pruned(pair[1])


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts stubs in the place of every check, and these functions in the place of some."""

    def put(runs: dict[str, Callable[[Any], Numbers]]) -> None:
        monkeypatch.setattr(judge, "checks_that_fit", lambda *_: stubs(MODES, runs))
        monkeypatch.setattr(judge, "checks", lambda *_, **__: stubs(GIVEN, runs, given=True))

    return put


def undecided_by(report: Report, crashed: Iterable[str]) -> None:
    """Require that these checks, and no others, are errors in a report, and that nothing makes it sound."""
    errors = [check for check in report.checks if check.outcome == "error"]
    assert [check.name for check in errors] == list(crashed)
    assert {check.reason for check in errors} == {LAST_LINE}
    assert all(check.traceback is not None and check.traceback.endswith(f"{LAST_LINE}\n") for check in errors)
    assert report.verdict == "undecided"


def test_the_stubs_are_sound(pair: Pair, plant: Callable[..., None], model: Any) -> None:
    """Where nothing crashes the same stubs give a sound verdict: what follows is due to the crash."""
    plant({})
    assert check_checkpoint(pair[1], base=pair[0]).verdict == "sound"
    assert check_model(model, checkpoint=pair[1], base=pair[0]).verdict == "sound"


@pytest.mark.parametrize("name", names(MODES))
def test_command_line(
    name: str,
    pair: Pair,
    plant: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`check` says first which check crashed, and how, and ends with 3, also with --allow-partial."""
    plant({name: crash})
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], "--allow-partial") == 3
    title, row, *rest = capsys.readouterr().out.splitlines()
    assert title.startswith("crashed: ")
    assert row.split() == [name, *LAST_LINE.split()]
    assert any(line.startswith(f"verdict:     undecided: 1 of {len(names(MODES))} checks crashed") for line in rest)


@pytest.mark.parametrize("name", names(GIVEN, given=True))
def test_loaded_model(name: str, pair: Pair, plant: Callable[..., None], model: Any) -> None:
    """`check_model` has the crash in its report, and is undecided."""
    plant({name: crash})
    undecided_by(check_model(model, checkpoint=pair[1], base=pair[0], allow_partial=True), [name])


PLUGIN = """
import harness.suite.preparing as preparing
from harness.checks.check import Check
from harness.errors import Undecided

real = preparing.checks_that_fit

def crash(target):
    raise KeyError("planted")

def undecided(target):
    raise Undecided("planted")

def passing(target):
    return None

preparing.checks_that_fit = lambda *arguments: [Check(check.title, {run}, check.mode) for check in real(*arguments)]
"""


def run_planted(directory: Path, pair: Pair, runs: str, *options: str) -> Any:
    """Run the suite with `runs`, an expression, in the place of every `check`."""
    (directory / "planted.py").write_text(PLUGIN.format(run=runs))
    return run_suite(directory, "-p", "planted", "-v", f"--pruned={pair[1]}", f"--base={pair[0]}", *options)


def test_suite(pair: Pair, tmp_path: Path) -> None:
    """In the suite every check that crashes fails its test, in the words of `check`, and none is skipped."""
    result = run_planted(tmp_path, pair, "crash", "--device-map=plain,disk", "--dtype=float32")
    found = outcomes(result)
    assert set(names(MODES[:1])) <= found.keys()
    assert set(found.values()) == {"FAILED"}
    assert result.returncode == 1
    assert result.stdout.count(f"\n{WORDS}\nTraceback (most recent call last):\n") == len(found)


def test_undecided_suite(pair: Pair, tmp_path: Path) -> None:
    """A suite with an undecided check skips it with its reason, and is not green unless that is accepted."""
    runs = "undecided if check.name == 'plain-float32.cache.dynamic.beam' else passing"
    options = ("--device-map=plain", "--dtype=float32", "--quantisation=none", "-rs")
    result = run_planted(tmp_path, pair, runs, *options)
    assert result.returncode == 1
    assert outcomes(result)["plain-float32.cache.dynamic.beam"] == "SKIPPED"
    assert "undecided: planted" in result.stdout
    assert f"undecided: 1 of {len(outcomes(result))} checks could not decide" in result.stdout
    assert run_planted(tmp_path, pair, runs, *options, "--allow-partial").returncode == 0


def test_undecided_check(
    pair: Pair, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that cannot decide leaves the verdict open, with its reason, unless what was checked is accepted."""

    def undecided(target: Any) -> Numbers:
        raise Undecided("the stock model leaves itself as far")

    plant({"plain-float32.cache.static.long": undecided})
    assert run(monkeypatch, "check", pair[1], "--base", pair[0]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert f"undecided: 1 of {len(names(MODES))} checks could not decide" in shown
    assert "plain-float32.cache.static.long the stock model leaves itself as far" in shown
    assert run(monkeypatch, "check", pair[1], "--base", pair[0], "--allow-partial") == 0


def test_faults_are_told_beside_a_crash(pair: Pair, plant: Callable[..., None]) -> None:
    """A crash hides no fault: with both the verdict is faulty, and both are told."""

    def faulty(target: Any) -> Numbers:
        raise FaultFound(fault("keys", "planted", "a key is lost", remedy="Store it."))

    plant({"stored.keys": faulty, "stored.files": crash})
    report = check_checkpoint(pair[1], base=pair[0])
    assert (report.verdict, [each.id for each in report.faults]) == ("faulty", ["planted"])
    assert [check.name for check in report.checks if check.outcome == "error"] == ["stored.files"]


def test_assertions(pair: Pair, plant: Callable[..., None]) -> None:
    """`assert_sound` fails over a crash, and over an undecided check, and names both."""

    def undecided(target: Any) -> Numbers:
        raise Undecided("open")

    plant({"stored.keys": crash, "stored.files": undecided})
    with pytest.raises(AssertionError) as caught:
        assert_sound(pair[1], base=pair[0])
    assert f"  crashed: stored.keys: {LAST_LINE}" in str(caught.value).splitlines()
    assert "  could not decide: stored.files: open" in str(caught.value).splitlines()


@pytest.mark.parametrize("step", ["diagnose", "told_apart"])
def test_diagnosis_that_crashes(
    step: str, pair: Pair, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash while faults are explained is told as a check's is, and costs no record."""
    plant({})
    monkeypatch.setattr(judge, step, lambda *_, **__: {}["planted"])
    report = check_checkpoint(pair[1], base=pair[0])
    name = {"diagnose": "causes", "told_apart": "carried-code"}[step]
    undecided_by(report, [f"diagnosis.{name}"])
    assert len(report.checks) == len(names(MODES)) + 1


def test_whole_traceback(
    pair: Pair, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--debug`, or the environment variable, the whole traceback is printed, else its last line alone."""
    plant({"stored.keys": crash})
    command = ("check", pair[1], "--base", pair[0])
    assert run(monkeypatch, *command) == 3
    assert "Traceback" not in capsys.readouterr().out
    assert run(monkeypatch, *command, "--debug") == 3
    assert 'raise KeyError("planted")' in capsys.readouterr().out
    monkeypatch.setenv("PRUNECHECK_DEBUG", "1")
    assert run(monkeypatch, *command) == 3
    assert 'raise KeyError("planted")' in capsys.readouterr().out


def test_views(pair: Pair, plant: Callable[..., None]) -> None:
    """JUnit has an error with the traceback, the page the name and the last line, JSON all of it."""
    plant({"plain-float32.poison": crash})
    report = check_checkpoint(pair[1], base=pair[0])
    cases = {case.get("name"): case for case in ElementTree.fromstring(junit_xml(report)).iter("testcase")}
    (error,) = cases["poison"]
    assert (error.tag, error.get("message"), error.get("type")) == ("error", LAST_LINE, "KeyError")
    assert (error.text or "").startswith("Traceback (most recent call last):\n")
    (verdict,) = cases["verdict"]
    assert (verdict.tag, verdict.get("type")) == ("error", "undecided")
    page = report_page(report)
    assert "KeyError: &#39;planted&#39;" in page
    assert page.index("KeyError: &#39;planted&#39;") < page.index("What the verdict rests on")
    assert Report.from_dict(report.to_dict()) == report


def test_worker_that_dies(pair: Pair, plant: Callable[..., None]) -> None:
    """A process that ends in a check, also with 0, makes its checks errors: none is lost in silence."""
    plant({"plain-float32.poison": die})
    report = check_checkpoint(pair[1], base=pair[0], workers=2)
    assert [check.name for check in report.checks] == names(MODES)
    lost = {check.name: check.reason or "" for check in report.checks if check.outcome == "error"}
    assert {name for name in names(MODES) if name.startswith("plain-float32.")} <= lost.keys()
    assert all("the process that ran it, or one beside it, died: " in reason for reason in lost.values())
    assert report.verdict == "undecided"


@pytest.mark.parametrize("code", [None, 0, 1])
def test_code_that_ends_the_process(code: int | None) -> None:
    """A check in which SystemExit is raised crashed: no exit code of a stranger's code becomes ours."""

    def leave(target: Any) -> Numbers:
        raise SystemExit(code)

    record, _ = run_check(Check("stored.keys", leave), None)
    assert record.outcome == "error"
    assert (record.reason or "").startswith("SystemExit")


def test_signals_and_interrupts_end_the_run() -> None:
    """A signal that ends the command, and Ctrl-C in a notebook, are no crashes of a check."""

    def interrupted(error: BaseException, target: Any) -> Numbers:
        raise error

    for error in (Ended(15), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            run_check(Check("stored.keys", partial(interrupted, error)), None)


def test_what_a_check_says_is_no_crash() -> None:
    """A check that could not look, and one that could not decide, come to that, with no traceback."""

    def says(error: Exception, target: Any) -> Numbers:
        raise error

    for error, outcome in ((NotChecked("no"), "skipped"), (Undecided("open"), "undecided")):
        record, _ = run_check(Check("stored.keys", partial(says, error)), None)
        assert (record.outcome, record.reason, record.traceback) == (outcome, str(error), None)


class Nameless(Exception):
    """An error that cannot even be written."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_errors_that_cannot_be_written() -> None:
    """An error whose own text raises is a crash like any other."""

    def nameless(target: Any) -> Numbers:
        raise Nameless

    record, _ = run_check(Check("stored.keys", nameless), None)
    assert record.outcome == "error"
    assert "Nameless" in (record.reason or "")
