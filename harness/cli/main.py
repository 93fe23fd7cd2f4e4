"""The command `prunecheck`. Exit codes: 0 sound or done, 1 fault found, 2 could not run, 3 undecided."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from harness.errors import CannotRun
from harness.system.crashes import DEBUG, internal_error
from harness.system.signals import ended_by, exit_at_signals
from pruning import PruningError, __version__

from .bench import bench
from .check import check
from .compare import compare
from .demo_command import demo
from .doctor import doctor
from .options import Debug
from .plan import plan
from .plant import plant
from .prune import prune
from .refresh import refresh
from .releases import bisect, matrix
from .scan import scan
from .settings import read_defaults

_READER_LEFT = 128 + signal.SIGPIPE  # what a shell says of a command that this signal ended

# In the order in which people need them, each with examples.
_COMMANDS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (demo, ("prunecheck demo",)),
    (
        scan,
        (
            "prunecheck scan Qwen/Qwen3-0.6B --out scan --html scan.html",
            "prunecheck scan SRC --out scan --metric influence --tokens 256",
        ),
    ),
    (
        plan,
        (
            "prunecheck plan SRC --drop 8",
            "prunecheck plan SRC --keep-bytes 80% --method one-shot --out small",
        ),
    ),
    (
        prune,
        (
            "prunecheck prune SRC DST --self-attn 12,17-20 --mlp 7",
            "prunecheck prune Qwen/Qwen3-0.6B DST --plan plan/plan.json --dry-run",
        ),
    ),
    (
        check,
        (
            "prunecheck check DST --base SRC --html report.html",
            "prunecheck check DST --base SRC --device-map plain --quantization none",
            "prunecheck check DST --base SRC -q --json - | jq .faults",
        ),
    ),
    (compare, ("prunecheck compare before.json after.json",)),
    (
        bench,
        (
            "prunecheck bench DST --base SRC --repeats 10 --json bench.json",
            "prunecheck bench DST --base SRC --batch 1,4 --prompt-tokens 128,512",
        ),
    ),
    (refresh, ("prunecheck refresh DST",)),
    (
        matrix,
        (
            "prunecheck matrix DST --base SRC --with transformers==5.23.0",
            "prunecheck matrix DST --with 'accelerate==1.14.0 transformers==5.20.2'",
        ),
    ),
    (
        bisect,
        ("prunecheck bisect DST --base SRC --package transformers --good 5.23.0",),
    ),
    (doctor, ("prunecheck doctor", "prunecheck doctor --json doctor.json")),
    (plant, ("prunecheck plant --list", "prunecheck plant kept-keys-lost DST BROKEN")),
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich is not worth the time that it takes to import, where only help is asked for
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prune sub-layers of language models, and prove that the pruned model is the model that was meant.",
    epilog="Defaults of options can be set in [tool.prunecheck] of the pyproject.toml of the working directory.",
)


def main() -> NoReturn:
    """Run the command line; a user's mistake, or a crash of ours, becomes one line on stderr and exit code 2."""
    exit_at_signals()
    code: Any = 0
    try:
        defaults = read_defaults(app)
        app(**({"default_map": defaults} if defaults else {}))
    except SystemExit as end:
        # typer ends with 1 where nobody reads what is printed, which would stand for a fault (0.29.2, `core._main`).
        if isinstance(end.__context__, BrokenPipeError):
            _write_nowhere()
            sys.exit(_READER_LEFT)
        code = end.code
    except Exception as error:
        if (ended := ended_by(error)) is not None:
            sys.exit(ended.code)
        _tell(error)
        code = 2
    try:
        sys.stdout.flush()  # here, where a reader that has left is not an error: at the exit Python would print one
    except BrokenPipeError:
        _write_nowhere()
    sys.exit(code)


def _write_nowhere() -> None:
    from harness.report.terminal import write_nowhere

    write_nowhere()


def _tell(error: Exception) -> None:
    """Write one line on stderr for an error that ends the command; for a crash, if it is asked for, the traceback."""
    from harness.report.terminal import visible  # names from strangers may hold what a terminal obeys

    lines = [f"prunecheck: {error}"]
    if not isinstance(error, PruningError | CannotRun):
        lines = internal_error(error, in_full="--debug" in sys.argv or bool(os.environ.get(DEBUG)))
    print(*map(visible, lines), sep="\n", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"prunecheck {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Debug = False,  # which `_tell` looks for, before or behind the command
) -> None:
    pass


for _command, _examples in _COMMANDS:
    # \b keeps typer from wrapping the lines below it.
    _lines = ("\b", "Examples:", *(f"  {line}" for line in _examples))
    app.command(epilog="\n".join(_lines))(_command)
