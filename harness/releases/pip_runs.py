"""pip of the running interpreter, so that the user's own settings of it hold, and its errors in one line."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
from typing import Final

from harness.errors import CannotRun
from harness.report.terminal import shortened

from .processes import child

_LONGEST: Final = 300
# What a folder as target does not go together with, and what would only cost time.
_SETTINGS: Final = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run_pip(*arguments: str) -> str:
    """Run pip and return what it printed; raises CannotRun, in one line, with the reason why it failed."""
    # -P: a folder `pip` where the user stands is not pip.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    # At SIGINT pip removes its temporary folders.
    with child(
        command, stderr=subprocess.STDOUT, ended_by=signal.SIGINT, environment=_SETTINGS, stdin=subprocess.DEVNULL
    ) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise CannotRun(reason(output))
    return output


def reason(output: str) -> str:
    """Return in one line why pip failed, from what it printed.

    (pip 23.2.1 and 26.3: lines that begin with "ERROR: ", of which the first that does not tell what was passed by
    says what could not be done.)
    """
    if "No module named pip" in output:
        return f"{sys.executable} has no pip, which installs the packages: run {sys.executable} -m ensurepip"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    passed_by = [error for error in errors if error.startswith("Ignored the following ")]
    said = next((error for error in errors if error not in passed_by), lines[-1] if lines else "pip said nothing")
    said = re.sub(r" \(from versions: .*\)$", "", said)
    if "connection broken by" in output:
        said = f"the package index cannot be reached: {said}"
    if needed := _python_needed(said, passed_by):
        said = f"{said}: it needs Python {needed}, and this is {platform.python_version()}"
    if causes := _causes(output):
        said = f"{said.rstrip('.')}: {'; '.join(causes)}"
    return shortened(said, _LONGEST)


def _python_needed(said: str, passed_by: list[str]) -> str | None:
    """Return which Python the release needs that was asked for, None where that is not why there is none."""
    asked = re.search(r"requirement \S*?==(\S+)", said)
    if asked is None:
        return None
    found = re.search(rf"(?:^|[\s;]){re.escape(asked[1])} Requires-Python ([^;]+)", " ".join(passed_by))
    return found and found[1].strip()


def _causes(output: str) -> list[str]:
    """Return which requirements contradict each other, where pip lists them."""
    _, _, behind = output.partition("The conflict is caused by:\n")
    return [line.strip() for line in behind.partition("\n\n")[0].splitlines() if line.strip()]
