"""Commands that go on where they were: killed, and called again, they come to the very same numbers."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crashes.killing import Ended, Killer, killer, moments
from tests.crashes.test_prune import digests

Results = dict[str, Any]
"""What a command's files hold, by name, without what it ran on."""


@dataclass(frozen=True)
class Resumed:
    """A command over a checkpoint `source` and a `text` in one folder.

    Attributes:
        folder: See above.
        command: The name of the command.
        options: All but the text and the directory to write.
        files: The files of JSON that it writes at its end.
        killing: What runs it.
        temporary: Its directory for temporary files.
    """

    folder: Path
    command: str
    options: tuple[object, ...]
    files: tuple[str, ...]
    killing: Killer
    temporary: Path

    def line(self, out: Path, *others: object) -> list[object]:
        """Return the command line that writes `out`; with other options where some are given."""
        return command_line(self.folder, self.command, out, others or self.options)

    def results(self, out: Path) -> Results:
        """Return what is there of the results; raises ValueError for a file that is not whole."""
        return {name: _content(out / name) for name in self.files if (out / name).exists()}

    def whole(self, out: Path) -> tuple[Results, float]:
        """Run it without an interruption, and return what it comes to, and its seconds."""
        ended = self.killing.run(*self.line(out))
        assert ended.code == 0, ended
        return self.results(out), ended.seconds

    def require_same(self, ended: Ended, out: Path, whole: Results, old: Results | None = None) -> None:
        """Judge what a killed command left where `old` was, and what the same command makes of it."""
        assert "Traceback" not in ended.output, ended
        assert ended.code in (0, -signal.SIGKILL, 143, 130), ended
        for name, content in self.results(out).items() if out.exists() else ():
            assert content in (whole[name], (old or {}).get(name)), f"{name} is neither the old nor the new"
        again = self.killing.run(*self.line(out))
        assert again.code == 0, again
        assert self.results(out) == whole
        assert not [name for name in os.listdir(out) if name.startswith(".")]
        assert not list(self.temporary.iterdir())

    def kill_at_moments(self, folder: Path, kind: signal.Signals, count: int) -> None:
        """Kill it at `count` moments of its whole length, and judge each."""
        before = digests(self.folder)
        whole, seconds = self.whole(folder / "whole")
        for number, moment in enumerate(moments(seconds, count, seed=kind)):
            out = folder / str(number)
            self.require_same(self.killing.run_until(moment, kind, *self.line(out)), out, whole)
        assert digests(self.folder) == before

    def kill_before_any_call(self, folder: Path, *others: object) -> None:
        """Kill it before each call that changes something; where options are given, after a run with those."""
        before = digests(self.folder)
        whole, _ = self.whole(folder / "whole")
        for number in range(200):
            out = folder / str(number)
            if others:
                assert self.killing.run(*self.line(out, *others)).code == 0
            old = self.results(out) if others else None
            ended = self.killing.run_until_call(number, signal.SIGKILL, out, *self.line(out))
            self.require_same(ended, out, whole, old)
            if ended.code == 0:
                break
        assert number > 10, "too few calls were seen"
        assert digests(self.folder) == before


@contextmanager
def resumed(
    folder: Path, command: str, options: Sequence[object], files: Sequence[str], out: Path
) -> Iterator[Resumed]:
    """Yield a command, run once into `out`, so that all is imported that it needs."""
    temporary = out.parent / "temporary"
    temporary.mkdir()
    with killer(*map(str, command_line(folder, command, out, options)), TMPDIR=str(temporary)) as killing:
        yield Resumed(folder, command, tuple(options), tuple(files), killing, temporary)


def command_line(folder: Path, command: str, out: Path, options: Sequence[object]) -> list[object]:
    """Return the command line."""
    return [command, folder / "source", "--out", out, "--text", folder / "text", *options]


def _content(path: Path) -> Any:
    content = json.loads(path.read_text())
    content.pop("environment", None)
    return content
