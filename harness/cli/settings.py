"""Defaults of options in `[tool.prunecheck]` of the `pyproject.toml` of the working directory.

Keys are the long names of options: at the top for every command that has the option, in a table such as
`[tool.prunecheck.check]` for that command.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import typer

from harness.errors import CannotRun

_FILE: Final = Path("pyproject.toml")
_TABLE: Final = "[tool.prunecheck]"
# What gives leave for something is typed each time: to run a stranger's code, to replace what is there.
_TYPED: Final = frozenset({"trust-remote-code", "overwrite", "force", "help", "version", "debug"})


def read_defaults(app: typer.Typer) -> dict[str, dict[str, Any]]:
    """Return the defaults of each command's parameters, empty without such a table.

    Raises CannotRun, in one line, for a file that is not TOML, an unknown key, and a table in a checkpoint's directory.
    """
    table = _read_table()
    if not table:
        return {}
    if Path("config.json").exists():
        raise CannotRun(f"{_TABLE} in {_FILE} is beside a checkpoint, which sets no options: run it elsewhere")
    commands = {name: _parameters(command) for name, command in _commands(app).items()}
    everywhere = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for key, value in everywhere.items():
        having = [name for name, parameters in commands.items() if key in parameters]
        if not having:
            raise CannotRun(_unknown(key, _TABLE, {each for parameters in commands.values() for each in parameters}))
        for name in having:
            defaults[name][commands[name][key]] = value
    for name, options in table.items():
        if not isinstance(options, Mapping):
            continue
        place = f"{_TABLE[:-1]}.{name}]"
        if name not in commands:
            raise CannotRun(f"{place} in {_FILE}: there is no such command: choose among {', '.join(commands)}")
        for key, value in options.items():
            if key not in commands[name]:
                raise CannotRun(_unknown(key, place, set(commands[name])))
            defaults[name][commands[name][key]] = value
    return defaults


def _read_table() -> Mapping[str, Any]:
    try:
        content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise CannotRun(f"{_FILE} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    tool = content.get("tool")
    table = tool.get("prunecheck") if isinstance(tool, Mapping) else None
    if table is not None and not isinstance(table, Mapping):
        raise CannotRun(f"prunecheck in [tool] of {_FILE} is not a table: write {_TABLE}")
    return table or {}


def _commands(app: typer.Typer) -> dict[str, Any]:
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    return commands


def _parameters(command: Any) -> dict[str, str]:
    """Return the parameter of each option of a command, by the option's long name without its dashes."""
    return {
        option[2:]: parameter.name
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option[2:] not in _TYPED
    }


def _unknown(key: str, place: str, known: set[str]) -> str:
    if key in _TYPED:
        return f"{key} in {place} of {_FILE} is not taken from a file: type --{key}"
    return f"{key} in {place} of {_FILE} is unknown: choose among {', '.join(sorted(known))}"
