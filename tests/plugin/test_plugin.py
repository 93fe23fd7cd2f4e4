"""The pytest plugin: light, and no trouble to suites that have nothing to do with it."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "harness", "pruning", "hypothesis.strategies")


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as `python -m pytest` does, with the directory on sys.path."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_start_imports_nothing_heavy(tmp_path: Path) -> None:
    """A suite that uses nothing of ours loads neither torch nor `harness`, though the plugin is registered."""
    (tmp_path / "test_light.py").write_text(
        "import sys\n"
        "def test_light(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.has_plugin('prunecheck')\n"
        f"    assert not [name for name in {HEAVY!r} if name in sys.modules]\n"
    )
    result = run_pytest(tmp_path)
    assert result.returncode == 0, result.stdout


def test_harness_folder_of_ones_own(tmp_path: Path) -> None:
    """A repository with a `harness/` folder of its own keeps working under `python -m pytest`."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("NAME = 'mine'\n")
    (tmp_path / "test_mine.py").write_text("import harness\ndef test_mine():\n    assert harness.NAME == 'mine'\n")
    result = run_pytest(tmp_path)
    assert result.returncode == 0, result.stdout


def test_fixture_behind_another_harness_folder(tmp_path: Path) -> None:
    """A fixture of ours that another `harness/` folder hides says so, in one line."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").touch()
    (tmp_path / "test_hidden.py").write_text("def test_hidden(real_checkpoint):\n    pass\n")
    result = run_pytest(tmp_path)
    assert result.returncode != 0
    assert f"{tmp_path / 'harness'} hides prunecheck's package of the same name" in result.stdout


def test_options_reach_the_fixtures(pytester: pytest.Pytester) -> None:
    """`--prunecheck-pruned` and `--prunecheck-base` are what the checkpoint fixtures give."""
    pytester.makepyfile(
        "def test_both(pruned_checkpoint, base_checkpoint):\n"
        "    assert (pruned_checkpoint.name, base_checkpoint.name) == ('slim', 'full')\n"
    )
    slim, full = pytester.mkdir("slim"), pytester.mkdir("full")
    result = pytester.runpytest_subprocess(f"--prunecheck-pruned={slim}", f"--prunecheck-base={full}")
    result.assert_outcomes(passed=1)


def test_missing_option_is_named(pytester: pytest.Pytester) -> None:
    """A checkpoint fixture without its option, or with one that is no directory, says which and what for."""
    pytester.makepyfile("def test_one(base_checkpoint):\n    pass\n")
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(
        ["*this test needs the option --prunecheck-base DIR: directory of the unpruned checkpoint*"]
    )
    result = pytester.runpytest_subprocess("--prunecheck-base=nowhere")
    result.stdout.fnmatch_lines(["*--prunecheck-base=nowhere is not a directory: name one that holds config.json*"])


def test_everything_is_documented(pytester: pytest.Pytester) -> None:
    """`pytest --help` names every option and `pytest --fixtures` every fixture of ours."""
    text = pytester.runpytest_subprocess("--help").stdout.str()
    for option in ("--prunecheck-pruned", "--prunecheck-base"):
        assert option in text
    text = pytester.runpytest_subprocess("--fixtures").stdout.str()
    for fixture in ("pruned_checkpoint", "base_checkpoint", "real_checkpoint"):
        assert fixture in text
