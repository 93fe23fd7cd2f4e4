"""The documentation is true: every command runs, every option and file it names is there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml  # a dependency of transformers

from docs_tests.commands import (
    CHOOSING,
    README,
    ROOT,
    RUN_ELSEWHERE,
    TUTORIAL,
    lines_not_printed,
    run_commands,
)
from harness.cli.main import app
from harness.tiny import TinySpec, write_tiny_checkpoint
from tests.harness.checks.cases import write_tokenizer

# What the README's examples write, and a page writes again.
PRUNE = "prunecheck prune SRC DST --self-attn 12,17-20 --mlp 7"

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

# Options of other programs.
FOREIGN_OPTIONS = {
    "--durations", "--fixtures", "--quiet", "--import-mode", "--pyargs", "--help", "--lf", "--junitxml", "--index-url",
    "--dry-run", "--report", "--target",  # of pip
    "--extra-index-url",
    "--basetemp", "--size", "--rounds", "--gpu",  # of our own benchmarks
}  # fmt: skip


def fenced(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def our_options() -> set[str]:
    """Return every option of the command line and of the pytest plugin."""
    command = typer.main.get_command(app)
    commands = [command, *command.commands.values()]
    options = {option for item in commands for parameter in item.params for option in parameter.opts}
    text = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True).stdout
    # Beside each, the short name that the conformance suite has.
    plugin = set(re.findall(r"--prunecheck-[a-z-]+", text))
    return options | plugin | {option.replace("--prunecheck-", "--") for option in plugin}


def test_a_line_that_is_not_printed_is_found() -> None:
    """An output that is shown otherwise than it is printed is found; spaces and what is left out do not count."""
    assert lines_not_printed("a  b\n...\nc\n", "a b \nx\n  c\n") == []
    assert lines_not_printed("a b\nd\n", "a b\n") == ["d"]


def run_all(folder: Path) -> None:
    """Run every command and piece of Python, the README's, then each page's; each prints the lines that are shown.

    A page finds what the README's commands wrote, unless it writes the same again. A command that an earlier page has
    is not run twice.
    """
    ran: list[str] = []
    for page in [README, *(path for path in sorted((ROOT / "docs").glob("*.md")) if path not in (TUTORIAL, CHOOSING))]:
        text = page.read_text(encoding="utf-8")
        if page != README and PRUNE in text:
            shutil.rmtree(folder / "DST")
            ran.remove(PRUNE)
        ran += run_commands(text, folder, leave_out=ran)
    assert len(ran) >= 15  # a pattern that finds nothing would pass


def test_commands_run(tmp_path: Path) -> None:
    """Whatever the README and the pages show runs, on a tiny checkpoint of as many layers as the plan there needs."""
    write_tokenizer(write_tiny_checkpoint(TinySpec(layers=24, vocabulary_size=256), tmp_path / "SRC"))
    run_all(tmp_path)


@pytest.mark.sweep
def test_commands_run_on_the_real_checkpoint(tmp_path: Path, real_checkpoint: Path) -> None:
    """Whatever the README and the pages show runs, on the real checkpoint, which takes ten minutes on one core."""
    (tmp_path / "SRC").symlink_to(real_checkpoint)
    run_all(tmp_path)


def test_commands_run_elsewhere_are_in_the_documents() -> None:
    """No exception outlives the command it was made for."""
    lines = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert [command for command in RUN_ELSEWHERE if f"$ {command}\n" not in lines] == []


def test_ci_runs_the_readme_command() -> None:
    """`.ci/run` calls the README's test command; before it, it tries to install a browser, and nothing else."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    command = "python3 -m pip install --quiet tox && python3 -m tox"
    assert f"$ {command}\n" in README.read_text(encoding="utf-8")
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands[:2] == ["set -euo pipefail", 'cd "$(dirname "$0")/.."']
    assert "apt-get install" in commands[2]
    assert commands[2].endswith(" ||")  # without it the test command runs all the same
    assert commands[3].startswith("    echo ")
    assert commands[4:] == [command]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_exist(path: Path) -> None:
    """Every option that a document names is one of ours, or a known one of another program."""
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text(encoding="utf-8")))
    assert named - our_options() - FOREIGN_OPTIONS == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of a document leads to a file."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_job_for_github_runs_the_command_of_the_readme() -> None:
    """The job to copy is valid YAML, and what it runs of ours is a command that the README's test runs."""
    guard = (ROOT / "docs" / "guard.md").read_text(encoding="utf-8")
    (block,) = fenced(guard, "yaml")
    steps = yaml.safe_load(block)["jobs"]["checkpoint"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("prunecheck")]
    assert len(commands) == 1
    assert f"$ {commands[0]}\n" in README.read_text(encoding="utf-8")


def test_architecture_names_every_room() -> None:
    """ARCHITECTURE.md has each folder and file at the top of both packages, and none that is not there."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {
        package: set(re.findall(r"`(\w+(?:\.py|/))`", text.split(f"## The rooms of {package}/")[1].split("\n## ")[0]))
        for package in ("pruning", "harness")
    }
    for package, named in rooms.items():
        there = {
            f"{path.name}/" if path.is_dir() else path.name
            for path in (ROOT / package).iterdir()
            if (path.is_dir() and path.name not in ("__pycache__", "data")) or path.suffix == ".py"
        }
        inner = {"stored/", "loaded/", "explain/", "sweep/", "scan/", "search/", "catalogue/", "planting/"}
        assert (there - {"__init__.py"}) - named == set(), package
        assert named - there <= {*inner, "pytest_prunecheck.py", "tests/", "docs_tests/", "benchmarks/", "fixtures/"}


def test_changelog_has_the_version() -> None:
    """The changelog's newest heading is the package's version."""
    from pruning import __version__

    heading = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert heading is not None
    assert heading[1] == __version__
