"""The process in which a checkpoint is judged under one set of packages: `python -m harness.releases.child`.

It reads a request from its standard input, and writes lines of JSON to its standard output: how far it is, what should
be known, and at the end the report, or why there is none. What libraries print goes to its standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.errors import CannotRun
from harness.system.requirements import require_libraries
from harness.system.signals import exit_at_signals
from pruning import PrunePlan, PruningError


def main() -> None:
    """Judge what the request names, and say what it came to."""
    exit_at_signals()
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()  # fails where nobody listens any more, which ends this process

    try:
        say(packages=_installed(request["packages"]))
        require_libraries()
        say(report=_judge(request["check"], say))
    except (CannotRun, PruningError) as error:
        say(refused=str(error))


def _judge(options: Mapping[str, Any], say: Any) -> dict[str, Any]:
    from harness.judge.judge import check_checkpoint  # torch and transformers, of the overlay if it has them

    plan = options["plan"]
    report = check_checkpoint(
        **{name: value for name, value in options.items() if value is not None and name != "plan"},
        plan=None if plan is None else PrunePlan.from_dict(plan),
        progress=lambda done, total, text: say(done=done, total=total, text=text),
        warn=lambda text: say(warning=text),
    )
    return report.to_dict()


def _installed(packages: Mapping[str, str | None]) -> dict[str, str]:
    """Return the versions that are seen here; raises CannotRun for one that is not what the overlay holds."""
    seen = {}
    for name, expected in packages.items():
        try:
            seen[name] = version(name)
        except PackageNotFoundError:
            seen[name] = "not installed"
        if expected not in (None, seen[name]):
            raise CannotRun(f"{name} {expected} is installed, but a process that is given it finds {name} {seen[name]}")
    return seen


if __name__ == "__main__":
    main()
