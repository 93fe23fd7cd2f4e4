"""`check` killed: what it left in the directory for temporary files, the next run removes."""

import signal
from pathlib import Path

from tests.crashes.killing import killer
from tests.crashes.test_prune import digests
from tests.harness.checks.cases import cases_in

OPTIONS = ("--device-map", "disk-all", "--dtype", "float32", "--quantisation", "none", "-k", "again or load")


def test_temporary_files_of_a_killed_check(tmp_path: Path) -> None:
    """Killed before a changing call in that directory, it leaves files there, and the next check none."""
    case = cases_in(tmp_path)("tied")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    line = ("check", str(case.sound), "--base", str(case.base), *OPTIONS)
    before = digests(case.sound), digests(case.base)
    left = 0
    with killer(*line, TMPDIR=str(temporary)) as killing:
        code = killing.run(*line).code
        for number in (1, 3, 6, 10, 15, 21):  # the first folder is there, and empty; and so on
            assert killing.run_until_call(number, signal.SIGKILL, temporary, *line).code == -signal.SIGKILL
            left += any(path.is_file() for path in temporary.rglob("*"))
            assert killing.run(*line).code == code
            assert not list(temporary.iterdir())
    assert left > 2, "no kill left anything"
    assert (digests(case.sound), digests(case.base)) == before
