"""Run the commands and the Python of pages, and compare what they print with what the pages show."""

import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
# A page on which nothing else builds, and that takes long: run beside the others.
CHOOSING = ROOT / "docs" / "choose-a-plan.md"

# Commands that are run elsewhere, and where.
RUN_ELSEWHERE = {
    "python3 -m pip install -c constraints.txt . && prunecheck demo": "tox environment `wheel`",
    "python3 -m pip install --quiet tox && python3 -m tox": "what runs this test",
    "python3 -m pip install -c constraints.txt -e .[peft,plot,notebook] pytest-xdist pytest-benchmark ruff mypy": "tox",
    "pytest -n 2": "tox environment `newest`",
    "PRUNECHECK_REWRITE=1 python3 -m tox -e sweep -- -k every_control": "takes half an hour",
    "PRUNECHECK_REWRITE=1 python3 -m tox -e bench": "takes three quarters of an hour",
    "python docs_tests/text_judge_plot.py": "test_plots.py",
    "prunecheck bisect DST --base SRC --package transformers --good 5.23.0 --bad latest": (
        "tests/harness/releases/test_transformers.py, on a checkpoint that a release broke"
    ),
}


def run_commands(text: str, folder: Path, leave_out: Collection[str] = ()) -> list[str]:
    """Run all that a text shows, in its order, in one directory; return the commands and pieces of Python that ran."""
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    # This environment's `prunecheck`, also where it is not activated.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran: list[str] = []
    for language, block in blocks:
        if language == "python":
            commands = [([sys.executable, "-c", block], "")]
        else:
            parts = [part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
            commands = [(["bash", "-c", line], shown) for line, _, shown in parts if line not in RUN_ELSEWHERE]
        for command, shown in commands:
            if command[-1] in leave_out:
                continue
            result = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,  # nobody answers
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, f"{command[-1]}\n{result.stderr}"
            assert lines_not_printed(shown, result.stdout) == [], f"{command[-1]}\n{result.stdout}"
            ran.append(command[-1])
    return ran


def lines_not_printed(shown: str, printed: str) -> list[str]:
    """Return the lines of an output as it is shown, but for `...`, that were not printed; spaces do not count."""
    there = {" ".join(line.split()) for line in printed.splitlines()}
    return [line for line in shown.splitlines() if line != "..." and " ".join(line.split()) not in there]
