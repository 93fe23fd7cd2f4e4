"""The pytest plugin: light, documented, and no trouble to suites that have nothing to do with it."""

import re
from pathlib import Path

import pytest

from tests.plugin.running import run_pytest, run_suite

HEAVY = ("torch", "transformers", "harness", "pruning", "hypothesis.strategies")
NAMES = ("pruned", "base", "plan", "device-map", "dtype", "quantisation", "trust-remote-code")
FIXTURES = (
    "pruned_checkpoint", "base_checkpoint", "pruned_session", "pruned_model", "pruned_reference", "pruned_tokenizer",
    "prune_plan", "tiny_checkpoints", "real_checkpoint",
)  # fmt: skip


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


def options_of(text: str) -> set[str]:
    """Return the options that a text of `--help` describes."""
    return set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE))


def test_short_names_are_the_suite_s(tmp_path: Path) -> None:
    """Where the conformance suite does not run, only the long names are there, and `--help` tells of each."""
    described = options_of(run_pytest(tmp_path, "--help").stdout)
    assert {f"--prunecheck-{name}" for name in NAMES} <= described
    assert not {f"--{name}" for name in NAMES} & described
    result = run_pytest(tmp_path, "--base=somewhere")
    assert result.returncode == 4
    assert "unrecognized arguments: --base=somewhere" in result.stderr


def test_help_of_the_suite(tmp_path: Path) -> None:
    """Where it runs, `--help` tells of both names of each option, though no checkpoint is named."""
    result = run_suite(tmp_path, "--help")
    assert result.returncode == 0, result.stderr
    assert {f"{prefix}{name}" for name in NAMES for prefix in ("--", "--prunecheck-")} <= options_of(result.stdout)
    assert "--quantization" in result.stdout  # the other spelling of --quantisation


def test_short_names_are_free_for_others(pytester: pytest.Pytester) -> None:
    """A suite of one's own may have options of the same short names, with a meaning of its own."""
    pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--base', type=int)\n"
        "    parser.addoption('--plan', action='store_true')\n"
    )
    pytester.makepyfile(
        "def test_mine(pytestconfig):\n"
        "    assert (pytestconfig.getoption('--base'), pytestconfig.getoption('--plan')) == (16, True)\n"
        "    assert pytestconfig.getoption('--prunecheck-base') is None\n"
    )
    pytester.runpytest_subprocess("--base", "16", "--plan").assert_outcomes(passed=1)


def test_marker_is_documented(tmp_path: Path) -> None:
    """`pytest --markers` says what the marker means and how to choose by it."""
    assert (
        "@pytest.mark.prunecheck_mode(name): the way of loading that a property of the conformance suite is checked "
        "in; choose with -m \"prunecheck_mode(name='plain-float32')\"\n"
    ) in run_pytest(tmp_path, "--markers").stdout


def test_fixtures_are_documented(tmp_path: Path) -> None:
    """`pytest --fixtures` says what each fixture is."""
    lines = run_pytest(tmp_path, "--fixtures").stdout.splitlines()
    described = {line.split()[0]: lines[number + 1].strip() for number, line in enumerate(lines[:-1]) if "--" in line}
    for name in FIXTURES:
        assert described[name]
        assert described[name] != "no docstring available"
