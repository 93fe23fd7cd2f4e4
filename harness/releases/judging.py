"""One judgement under one set of packages, in a process of its own: the seam at which sets may run elsewhere."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from packaging.utils import canonicalize_name

from harness.errors import CannotRun
from harness.report.report import Report
from harness.report.terminal import shortened
from harness.system.cache_directory import default_cache_directory
from harness.system.scratch import scratch_folder
from pruning import PrunePlan

from .overlays import Overlay, overlay
from .package_set import read_set
from .processes import child
from .set_record import SetRecord

FOLDER: Final = "releases"
"""Where the cache has what belongs to sets of packages."""

_LONGEST: Final = 300


@dataclass(frozen=True)
class Request:
    """What is judged, and how: the arguments of `check_checkpoint`; None stands for its default."""

    checkpoint: str
    base: str | None = None
    plan: PrunePlan | None = None
    device_map: tuple[str, ...] | None = None
    dtype: tuple[str, ...] | None = None
    quantisation: tuple[str, ...] | None = None
    trust_remote_code: bool = False
    allow_partial: bool = False
    keyword: str | None = None
    workers: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON holds it."""
        return asdict(self) | {"plan": None if self.plan is None else self.plan.to_dict()}


@dataclass(frozen=True)
class Listener:
    """Whom a judgement tells what happens: `step` which share is done and what comes, `warn` what should be known."""

    step: Callable[[float, str], None]
    warn: Callable[[str], None]


Judge = Callable[[str, Request, Listener], SetRecord]
"""Judges under one set of packages, as `--with` has it; what it cannot judge has a reason in its record."""


def judge_set(packages: str, request: Request, listener: Listener) -> SetRecord:
    """Install a set of packages if need be, judge under it, and return what it came to."""
    started = time.perf_counter()
    seen: dict[str, str] = {}
    report, reason = None, None
    try:
        requirements = read_set(packages)
        installed = overlay(requirements, default_cache_directory() / FOLDER, lambda text: listener.step(0, text))
        listener.step(0, "starting")
        names = dict.fromkeys(canonicalize_name(requirement.name) for requirement in requirements)
        report = _judged(request, installed, dict.fromkeys(names), seen, listener)
    except CannotRun as error:
        reason = str(error)
    return SetRecord(packages, seen, report, reason, time.perf_counter() - started)


def _judged(
    request: Request, installed: Overlay, names: Mapping[str, None], seen: dict[str, str], listener: Listener
) -> Report:
    """Return the report of a process that has the overlay; `seen` gets the versions that it sees."""
    # -P: no file that lies where the user stands takes a module's place.
    command = [sys.executable, "-P", "-m", "harness.releases.child"]
    content = json.dumps({"packages": {**names, **installed.packages}, "check": request.to_dict()})
    with scratch_folder() as scratch:
        (scratch / "request.json").write_text(content, encoding="utf-8")
        with (
            (scratch / "request.json").open("rb") as stdin,
            (scratch / "stderr").open("w+b") as stderr,
            child(
                command, stdin=stdin, stderr=stderr, ended_by=signal.SIGTERM, environment=_path(installed.path)
            ) as process,
        ):  # fmt: skip
            answer = _answer(process.stdout, seen, listener)
            process.wait()
            if "report" in answer:
                return Report.from_dict(answer["report"])
            raise CannotRun(answer.get("refused") or _why_dead(process.returncode, stderr))


def _answer(lines: IO[str] | None, seen: dict[str, str], listener: Listener) -> dict[str, Any]:
    """Pass on what the process says meanwhile, and return what it said last."""
    answer: dict[str, Any] = {}
    for line in lines or ():
        answer = json.loads(line)
        if "packages" in answer:
            seen.update(answer["packages"])
        elif "warning" in answer:
            listener.warn(answer["warning"])
        elif "text" in answer:
            listener.step(answer["done"] / max(answer["total"], 1), answer["text"])
    return answer


def _path(overlay_path: Path | None) -> dict[str, str]:
    """Return what puts an overlay before all else that a process imports; processes that it starts inherit it."""
    if overlay_path is None:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(overlay_path), os.environ.get("PYTHONPATH"))))}


def _why_dead(code: int, stderr: IO[bytes]) -> str:
    """Return why a process gave no answer: the last line that it printed, or the signal that ended it."""
    if code < 0:
        return f"the process that judges was ended by {signal.Signals(-code).name}; is there enough memory?"
    stderr.seek(0)
    lines = stderr.read().decode("utf-8", "replace").strip().splitlines()
    return f"the judge itself failed: {shortened(lines[-1], _LONGEST) if lines else f'exit code {code}'}"
