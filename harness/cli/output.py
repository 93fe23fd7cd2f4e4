"""Where the words of a command go: its view to stdout, its record to a file, what should be known to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NO_PICTURES: Final = "no pictures are drawn into {}: matplotlib is not installed; pip install 'prunecheck[plot]'"

_STDOUT: Final = Path("-")


@dataclass(frozen=True)
class Output:
    """The output of one command: `quiet` leaves errors and the verdict; a `json_file` of `-` leaves the record alone.

    What needs rich, or the reports, is imported when it is used: `--help` needs neither.
    """

    json_file: Path | None = None
    quiet: bool = False

    @property
    def is_record_alone(self) -> bool:
        """Whether the record goes to stdout, and then nothing else there."""
        return self.json_file == _STDOUT

    def require_writable(self, *others: Path | None) -> None:
        """Raise CannotRun, before any work, for a file that has no directory to be written to."""
        from harness.report.files import require_writable

        for path in (None if self.is_record_alone else self.json_file, *others):
            require_writable(path)

    def progress(self) -> AbstractContextManager[Callable[[float, int, str], None]]:
        """Return the bar of `harness.system.progress.count_progress`."""
        from harness.system.progress import count_progress

        return count_progress(quiet=self.quiet)

    def warn(self, text: str) -> None:
        """Write a line on stderr, which should be known before the work begins."""
        from harness.report.terminal import visible

        if not self.quiet:
            print(f"prunecheck: {visible(text)}", file=sys.stderr, flush=True)

    def show(self, view: Callable[[], object], *verdicts: str) -> None:
        """Call `view`, which writes for people to stdout; or write the verdicts alone, a line each, if it is quiet."""
        from harness.report.terminal import visible, write_nowhere

        if self.is_record_alone:
            return
        try:
            if not self.quiet:
                view()
            else:
                print(*map(visible, verdicts), sep="\n", end="\n" if verdicts else "", flush=True)
        except BrokenPipeError:  # the reader has left; the files are still to be written
            write_nowhere()

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write the record as JSON, if that is asked for."""
        text = json.dumps(record, indent=2) + "\n"
        if self.is_record_alone:
            sys.stdout.write(text)
        else:
            self.write(self.json_file, lambda: text)

    def write(self, path: Path | None, content: Callable[[], str]) -> None:
        """Write what `content` returns to a file, if there is one."""
        from harness.report.files import write_text

        if path is not None:
            write_text(path, content())
