"""The table of symptoms is true: its commands run, pass what is sound, and find each cause that they are to confirm."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.demo import bundled_plan
from harness.faults import FAULTS
from pruning import PrunePlan, prune_checkpoint
from tests.harness.checks.cases import Case, cases_in, judge_mutation, suitable_case, told

PAGE = (Path(__file__).parents[1] / "docs" / "garbled-output.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ([^|]*) \| ([^|]* \| `prunecheck check [^`]*` \| .*) \|$", PAGE, flags=re.MULTILINE))
COMMANDS = {symptom: re.findall(r"`(prunecheck check [^`]*)`", row)[0] for symptom, row in ROWS.items()}
CAUSES = [
    (name, COMMANDS[symptom])
    for symptom, row in ROWS.items()
    for name in re.findall(r"`([\w:-]+)`", row.partition("|")[0])
    if name in FAULTS
]
FINDING = "the plan itself ruins this model"
RUINOUS = "garbage, and every check is green"


def pruned_in(folder: Path, base: Path, plan: PrunePlan) -> Path:
    """Return a directory that holds SRC, the real checkpoint, and DST, what is pruned."""
    (folder / "SRC").symlink_to(base)
    prune_checkpoint(base, folder / "DST", plan, sync=False)
    return folder


@pytest.fixture(scope="module")
def folder(real_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the real checkpoint, pruned by the demo's plan."""
    return pruned_in(tmp_path_factory.mktemp("page"), real_checkpoint, bundled_plan())


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Return a function from the name of a spec to its unpruned and its sound pruned checkpoint, tiny ones."""
    return cases_in(tmp_path_factory.mktemp("tiny"))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the page with this environment's `prunecheck`."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_table_is_read() -> None:
    """Every symptom has a command, and most have causes that can be planted."""
    table = PAGE.partition("## Find your symptom")[2].partition("\n## ")[0]
    assert len(ROWS) == table.count("\n|") - 2 == 9
    assert len(CAUSES) >= 12


@pytest.mark.parametrize("symptom", [symptom for symptom in COMMANDS if symptom != RUINOUS])
def test_command_passes_what_is_sound(symptom: str, folder: Path) -> None:
    """Each command runs on a sound pruned checkpoint, and finds nothing."""
    result = run(COMMANDS[symptom], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert FINDING not in result.stdout


def test_command_tells_a_bad_plan_from_a_fault(real_checkpoint: Path, tmp_path: Path) -> None:
    """For a sound checkpoint of a ruinous plan the command says that the plan ruins it, in the words of the page."""
    result = run(COMMANDS[RUINOUS], pruned_in(tmp_path, real_checkpoint, PrunePlan(mlp=[0])))
    assert result.returncode == 0, result.stdout + result.stderr
    assert FINDING in " ".join(result.stdout.split())
    assert f"`{FINDING}`" in ROWS[RUINOUS]


@pytest.mark.parametrize(("name", "command"), CAUSES)
def test_command_finds_its_cause(name: str, command: str, case: Callable[[str], Case], tmp_path: Path) -> None:
    """The checks that a command selects find each cause of its row, and name its family."""
    fault = FAULTS[name]
    assert fault.plant is not None
    words = shlex.split(command)
    keyword = words[words.index("-k") + 1]
    report = judge_mutation(fault, suitable_case(fault, case), tmp_path, keyword=keyword, allow_partial=True)
    assert report.verdict == "faulty", told(report)
    assert report.faults[0].family == fault.family


def test_plant_command_runs(folder: Path) -> None:
    """What the page plants is planted."""
    (command,) = re.findall(r"^\$ (.*)$", PAGE, flags=re.MULTILINE)
    result = run(command, folder)
    assert result.returncode == 0, result.stderr
    assert (folder / "BROKEN" / "config.json").is_file()
