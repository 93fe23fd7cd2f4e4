"""Run command lines in forks of this process, each killed at a moment or at one of its calls: `killing.py` asks.

A fork, since what is killed shall be the command's work, not its imports, and a thousand shall not take long.
"""

import builtins
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGING = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
_WRITING = ("pwrite", "copy_file_range", "fsync", "write")  # of which Python has no audit events
_LONGEST = 120  # seconds; what takes longer hangs


def main() -> None:
    """Run the command line that is named, which imports what it needs; then answer requests, a line of stdin each."""
    # Whoever runs the tests in the background has it ignored, which commands leave to be so: no moment would kill one.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    from harness.cli import main as cli

    out, err = (redirect(io.StringIO()) for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr))
    with out, err, contextlib.suppress(SystemExit):
        sys.argv = ["prunecheck", *sys.argv[1:]]
        cli.main()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _run(request, output.fileno())
        if request["after_seconds"] is not None:
            time.sleep(request["after_seconds"])
            os.kill(pid, request["signal"])  # not waited for yet, so the number is still its own
        ended, status = os.waitpid(pid, os.WNOHANG)
        while not ended:
            if time.monotonic() - begin > _LONGEST:
                os.kill(pid, signal.SIGKILL)
                raise RuntimeError(f"still running after {_LONGEST} seconds: {request}")
            time.sleep(0.001)
            ended, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - begin
        output.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status), "seconds": seconds, "output": output.read().decode(),
        }  # fmt: skip


def _run(request: dict[str, Any], output: int) -> None:
    """Run the command, in the fork, and end."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if request["before_call"] is not None:
        _kill_before_call(request["before_call"], request["signal"], request["folder"])
    sys.argv = ["prunecheck", *request["arguments"]]
    code: Any = 1
    try:
        sys.modules["harness.cli.main"].main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _kill_before_call(number: int, kind: int, folder: str) -> None:
    """Have this process killed when it is about to make the n-th call, from 0, that changes something in a folder.

    Behind each file that was opened to be written, too.
    """
    left, lock = [number], threading.Lock()

    def step() -> None:
        with lock:
            left[0] -= 1
            now = left[0] == -1
        if now:
            os.kill(os.getpid(), kind)

    def is_within(file: Any) -> bool:
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(os.fsdecode(file))
        return Path(path).is_relative_to(folder)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and is_within(arguments[0]):
                step()
        elif event == "fcntl.flock" or (event in ("os.remove", "os.rmdir") and arguments[1] != -1):
            step()  # by the name within an open directory: only what is being removed is reached so
        elif event in _CHANGING and is_within(arguments[0]):
            step()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if any(is_within(file) for file in arguments[:2] if isinstance(file, int) and file > 2):
                step()
            return function(*arguments, **named)

        return call

    def opened(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            file = function(*arguments, **named)
            if file.writable() and is_within(file.fileno()):
                step()  # it is there, and empty: what Python's buffered files write afterwards is not seen
            return file

        return call

    sys.addaudithook(note)
    builtins.open = io.open = opened(open)  # pathlib calls the one, all else the other
    for name in _WRITING:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    main()
