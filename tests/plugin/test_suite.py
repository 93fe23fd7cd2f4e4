"""The conformance suite on sound and faulty checkpoints, with what pytest offers to those who run it."""

import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree

import pytest

from pruning import PrunePlan
from tests.plugin.conftest import Pair
from tests.plugin.running import SMALL, contents, outcomes, run_pytest_with_cache, run_suite

MODE = "plain-float32"


@dataclass(frozen=True)
class Run:
    """A run of the suite in `directory`, which was empty; `before` is what `checkpoint` held before it."""

    result: CompletedProcess[str]
    directory: Path
    checkpoint: Path
    before: dict[str, bytes]
    junit: Path


@pytest.fixture(scope="session")
def sound_run(sound: Pair, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The suite, in full in one way of loading, on a sound checkpoint; it may warn of nothing."""
    base, pruned = sound
    junit, empty = tmp_path_factory.mktemp("sound_run") / "junit.xml", tmp_path_factory.mktemp("empty")
    before = contents(pruned)
    strict = ("-v", "--strict-markers", "--strict-config", "-W", "error", f"--junitxml={junit}")
    result = run_suite(empty, "--pruned", pruned, "--base", base, *SMALL, *strict)
    return Run(result, empty, pruned, before, junit)


def test_sound_checkpoint_passes(sound_run: Run) -> None:
    """Every property of a sound checkpoint passes, or says why it was skipped, with warnings as errors."""
    assert sound_run.result.returncode == 0, sound_run.result.stdout
    found = outcomes(sound_run.result)
    skipped = {name for name, outcome in found.items() if outcome == "SKIPPED"}
    # There is no tokenizer, and without a cache nothing to use again.
    natural = f"{MODE}.logits.identity.natural"
    assert skipped == {natural, *(f"{MODE}.cache.none.{use}" for use in ("chunked-prefill", "long", "reused"))}
    assert {outcome for name, outcome in found.items() if name not in skipped} == {"PASSED"}


def test_ids_name_mode_and_property(sound_run: Run) -> None:
    """Each test is named after what is stored or the way of loading, and after the property."""
    names = outcomes(sound_run.result)
    assert {"stored.keys", f"{MODE}.load", f"{MODE}.logits.zero-weights", f"{MODE}.cache.dynamic.beam"} <= names.keys()
    assert {name.partition(".")[0] for name in names} == {"stored", MODE}


def test_nothing_is_left_behind(sound_run: Run) -> None:
    """The directory that the suite ran in is still empty, and the checkpoint is as it was."""
    assert contents(sound_run.directory) == {}
    assert contents(sound_run.checkpoint) == sound_run.before


def test_junit(sound_run: Run) -> None:
    """`--junitxml` holds a case for each property, with what it measured."""
    cases = {case.get("name", ""): case for case in ElementTree.parse(sound_run.junit).iter("testcase")}
    assert cases.keys() == {f"test_property[{name}]" for name in outcomes(sound_run.result)}
    measured = cases["test_property[stored.base-bytes]"].iter("property")
    assert {entry.get("name") for entry in measured} == {"tensors", "bytes"}


@pytest.fixture(scope="session")
def faulty_runs(
    sound: Pair, faulty: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CompletedProcess[str], CompletedProcess[str], Path]:
    """The suite on a faulty checkpoint, again with `--lf`, and where."""
    directory = tmp_path_factory.mktemp("faulty_runs")
    command = ("--pyargs", "harness.suite", f"--pruned={faulty}", f"--base={sound[0]}", *SMALL, "-v", "-k", "stored")
    first = run_pytest_with_cache(directory, *command)
    return first, run_pytest_with_cache(directory, *command, "--lf"), directory


def test_faulty_checkpoint_fails(faulty_runs: tuple[CompletedProcess[str], CompletedProcess[str], Path]) -> None:
    """A fault fails the test of the property that it breaks, with its cause and remedy, once, and no frame of ours."""
    result, _, _ = faulty_runs
    assert result.returncode == 1
    assert [name for name, outcome in outcomes(result).items() if outcome == "FAILED"] == ["stored.keys"]
    _, _, failures = result.stdout.partition("= FAILURES =")
    failures, _, _ = failures.partition("= short test summary info =")
    lines = failures.splitlines()[2:-1]
    assert len(lines) == 2, failures
    assert lines[0].startswith("4 key(s) that the plan (self_attn 1-2, mlp 1, from pruning.json) keeps are not stored")
    assert lines[1].startswith("keys: Prune the base again with prunecheck.")


def test_last_failed(faulty_runs: tuple[CompletedProcess[str], CompletedProcess[str], Path]) -> None:
    """`--lf` runs again what failed, and nothing else."""
    _, again, _ = faulty_runs
    assert again.returncode == 1
    assert outcomes(again) == {"stored.keys": "FAILED"}


@pytest.mark.newest
def test_keyword_and_ways_of_loading(sound: Pair, tmp_path: Path) -> None:
    """`-k` matches the property's name, and the options choose ways of loading as those of the command do."""
    chosen = ("--device-map=plain,auto", "--dtype=bfloat16", "--quantisation=8bit")
    result = run_suite(tmp_path, "--pruned", sound[1], *chosen, "--collect-only", "-q", "-k", "load")
    assert result.returncode == 0, result.stdout
    names = re.findall(r"test_property\[([^]]+)\]", result.stdout)
    assert names == [f"{place}-{precision}.load" for place in ("plain", "auto") for precision in ("bfloat16", "8bit")]


@pytest.mark.newest
def test_marker_chooses_and_nothing_of_the_checkpoint_configures(sound: Pair, tmp_path: Path) -> None:
    """`-m` chooses by way of loading; with `--pruned=DIR` neither pytest.ini nor conftest.py in DIR counts."""
    canary = _copy_with_tests(sound[1], tmp_path)
    (tmp_path / "checkpoint" / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "empty").mkdir()
    expression = "prunecheck_mode(name='stored')"
    pruned = f"--pruned={tmp_path / 'checkpoint'}"
    result = run_suite(tmp_path / "empty", pruned, f"--base={sound[0]}", *SMALL, "-v", "-m", expression)
    assert result.returncode == 0, result.stdout
    assert {name.partition(".")[0] for name in outcomes(result)} == {"stored"}
    assert len(outcomes(result)) > 10
    assert not canary.exists()


@pytest.mark.newest
def test_configuration_in_the_checkpoint_is_refused(sound: Pair, tmp_path: Path) -> None:
    """Where pytest took the DIR of `--pruned DIR` for a path of tests and read a pytest.ini there, one line says so."""
    canary = _copy_with_tests(sound[1], tmp_path)
    checkpoint = tmp_path / "checkpoint"
    (checkpoint / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (tmp_path / "empty").mkdir()
    result = run_suite(tmp_path / "empty", "--pruned", checkpoint, *SMALL)
    assert result.returncode == 4
    assert result.stderr.strip() == (
        f"ERROR: pytest took {checkpoint / 'pytest.ini'} for its own configuration: write --pruned={checkpoint}, "
        "in one word, and run it from another directory"
    )
    assert not canary.exists()


def _copy_with_tests(pruned: Path, directory: Path) -> Path:
    """Copy a checkpoint, with tests and a namesake of a library that leave a canary where they run; return its path."""
    checkpoint, canary = shutil.copytree(pruned, directory / "checkpoint"), directory / "canary"
    for name in ("conftest.py", "test_x.py", "psutil.py"):
        (checkpoint / name).write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    return canary


@pytest.mark.newest
@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_workers(sound: Pair, tmp_path: Path) -> None:
    """With `-n 2` the tests of one way of loading run on one worker."""
    modes = ("--device-map=plain", "--dtype=float32,bfloat16", "--quantisation=none")
    keyword = "stored.plan or stored.config or placement or buffers or called"
    result = run_suite(tmp_path, "-n", "2", "-v", f"--pruned={sound[1]}", f"--base={sound[0]}", *modes, "-k", keyword)
    assert result.returncode == 0, result.stdout
    ran = re.findall(r"\[(gw\d)\].* PASSED .*test_property\[([^].]+)\.([^]]+)\]", result.stdout)
    assert len(ran) == 8
    workers = {mode: {worker for worker, name, _ in ran if name == mode} for _, mode, _ in ran}
    assert workers.keys() == {"stored", "plain-float32", "plain-bfloat16"}
    assert all(len(each) == 1 for each in workers.values())


@pytest.mark.newest
def test_every_option_arrives(sound: Pair, foreign: Path, tmp_path: Path) -> None:
    """Under long names, too, options reach the suite: a wrong plan fails, and trusted code runs.

    A conftest.py and a test that lie beside that code do not.
    """
    canary = _copy_with_tests(foreign, tmp_path)
    PrunePlan(self_attn=(1, 2)).to_file(tmp_path / "plan.json")
    values = {"pruned": tmp_path / "checkpoint", "base": sound[0]}
    values |= {"device-map": "plain", "dtype": "float32", "quantisation": "none"}
    options = [part for name, value in values.items() for part in (f"--prunecheck-{name}", value)]
    options += ["--plan", tmp_path / "plan.json", "--trust-remote-code"]  # the others' short names are used above
    keyword = "stored.keys or placement or stored.files"
    (tmp_path / "empty").mkdir()
    result = run_suite(tmp_path / "empty", *options, "-v", "-k", keyword)
    assert outcomes(result) == {"stored.files": "PASSED", "stored.keys": "FAILED", f"{MODE}.placement": "PASSED"}
    assert not canary.exists()


@pytest.mark.newest
def test_usage_errors_are_one_line(tmp_path: Path) -> None:
    """Without `--pruned` it ends with 4, as pytest's own usage errors do, in one line without a traceback."""
    result = run_suite(tmp_path)
    assert result.returncode == 4
    assert result.stderr.strip() == "ERROR: the suite needs --pruned DIR: the checkpoint to judge"
    assert "Traceback" not in result.stdout
    assert "harness" not in result.stdout
