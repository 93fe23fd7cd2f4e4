"""Kill a command line at a moment, or before one of the calls that change something; for whatever judges the rest."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal, its seconds, and what it printed, stderr included."""

    code: int
    seconds: float
    output: str


class Killer:
    """Runs command lines of `prunecheck` in a process that has imported it, and may have one killed by a signal."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, *arguments: object) -> Ended:
        """Run a command to its end."""
        return self._ask(arguments)

    def run_until(self, seconds: float, signal: int, *arguments: object) -> Ended:
        """Run a command that gets the signal after so many seconds, unless it ended before."""
        return self._ask(arguments, signal=signal, after_seconds=seconds)

    def run_until_call(self, number: int, signal: int, folder: Path, *arguments: object) -> Ended:
        """Run a command that gets the signal when it is about to change something below `folder` the n-th time."""
        return self._ask(arguments, signal=signal, before_call=number, folder=str(folder))

    def _ask(self, arguments: tuple[object, ...], **request: Any) -> Ended:
        request = {"signal": None, "after_seconds": None, "before_call": None, "folder": None} | request
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"arguments": list(map(str, arguments)), **request}) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def killer(*arguments: str, **environment: str) -> Iterator[Killer]:
    """Yield a Killer whose process has run this command line, which may fail, and so imported what it needs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crashes.process", *arguments],
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1"}
        | environment,  # a fork has none of the threads that were there before it
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()  # so that it ends


def moments(seconds: float, count: int, seed: int) -> list[float]:
    """Draw moments of a command that takes so many seconds, a few of them behind its end; the same for a seed."""
    draw = random.Random(seed)
    return [draw.uniform(0, 1.1 * seconds) for _ in range(count)]
