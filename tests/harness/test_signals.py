"""Ctrl-C and SIGTERM end a command, which undoes what it began."""

import signal
from pathlib import Path

import pytest

from tests.unit.checkpoints import run_python

pytestmark = pytest.mark.newest  # nothing here depends on the version of transformers

# In place of a command: one that gets a signal while it has a temporary folder, or undoes something badly.
RUN = """
import os, signal, sys
from harness.cli import main as cli
from harness.system.scratch import scratch_folder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored

def app():
    with scratch_folder() as folder:
        print(folder, flush=True)
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
        finally:
            if sys.argv[2] == "fails to undo":
                1 / 0

cli.app = app
cli.main()
"""


@pytest.mark.parametrize("place", ["undoes", "fails to undo"])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command(kind: signal.Signals, place: str) -> None:
    """A command ends with the signal's code, in silence, and its temporary folder is gone."""
    process = run_python(RUN, int(kind), place, check=False)
    assert (process.returncode, process.stderr) == (128 + kind, "")
    folder = Path(process.stdout.strip())
    assert folder.is_absolute()
    assert not folder.exists()
