"""Run pytest in a process of its own, as people do."""

import os
import re
import subprocess
import sys
from pathlib import Path

# One way of loading, the cheapest.
SMALL = ("--device-map=plain", "--dtype=float32", "--quantisation=none")
OUTCOME = re.compile(r"test_property\[([^]]+)\]\S* (PASSED|FAILED|SKIPPED)")


def run_pytest(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pytest as `python -m pytest` does, with the directory on sys.path; it keeps no cache."""
    return run_pytest_with_cache(directory, "-p", "no:cacheprovider", *arguments)


def run_pytest_with_cache(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pytest likewise; it writes `.pytest_cache`, as it does when nobody forbids it."""
    command = [sys.executable, "-m", "pytest", *map(str, arguments)]
    # Nothing of the pytest that runs this test, or of its workers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def run_suite(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the conformance suite in a directory."""
    return run_pytest(directory, "--pyargs", "harness.suite", *arguments)


def outcomes(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the outcome of each property that a run with `-v` names."""
    return dict(OUTCOME.findall(result.stdout))


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file under a directory, by its path there."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
