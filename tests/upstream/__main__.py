"""Run transformers' own model tests over stock Qwen3 and over ours: what stock passes, ours passes.

    python -m tests.upstream [pytest's options]

Exit code 0 where that holds, 1 where it does not, 2 where it could not be asked.
"""

import os
import subprocess
import sys
from pathlib import Path

# Before transformers is imported: its tests take what needs the hub as skipped, and its progress bars fill a log.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import transformers

from harness.system.cache_directory import default_cache_directory
from tests.upstream.comparison import EVERY_PART, PASSED, Outcomes, differences
from tests.upstream.exceptions import EXCEPTIONS
from tests.upstream.source import fetched_tests

HERE = Path(__file__).parent


def main(options: list[str]) -> int:
    """Run the tests with `options` for pytest, print what differs, and return the exit code."""
    try:
        source = fetched_tests(transformers.__version__, default_cache_directory() / "upstream")
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"transformers {transformers.__version__} gave no tests ({error}): is there a network?", file=sys.stderr)
        return 2
    # What the source package has comes first; the new processes of its tests get the same path.
    sys.path[:0] = [str(source), str(HERE / "stand_ins")]
    outcomes = Outcomes()
    usual = ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "-W", "ignore", "--tb=no", "-q"]
    code = pytest.main([*usual, *options, str(HERE / "qwen3_tests.py")], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return 2
    stock, ours = (outcomes.by_class.get(name, {}) for name in ("TestStock", "TestPruned"))
    lines = differences(stock, ours, [test for test in EXCEPTIONS if test in stock])
    for line in lines:
        if traceback := outcomes.tracebacks.get(f"TestPruned::{line.partition(': ')[0]}"):
            print(f"\n{line}\n{traceback}")
    passed = [
        sum(outcome == PASSED for test, outcome in tests.items() if not test.endswith(EVERY_PART))
        for tests in (stock, ours)
    ]
    print(f"\ntransformers {transformers.__version__}: stock passes {passed[0]} tests, ours {passed[1]}")
    for test, reason in EXCEPTIONS.items():
        if test in stock:
            print(f"exception: {test}: {reason}")
    print("\n".join(lines) or "ours passes all other tests that stock passes")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
