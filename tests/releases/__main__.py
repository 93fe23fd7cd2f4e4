"""Examine ours on every minor release of transformers that the package index has, and write docs/releases.md.

    python -m tests.releases [RELEASE ...]

With releases named, those alone are examined, and the page keeps what it had of the others. Exit code 0 where ours is
right everywhere, or stock is wrong, too; 1 where ours alone is wrong; 2 where a release could not be examined.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.progress import Progress

from harness.errors import CannotRun
from harness.releases.index import stable_releases
from harness.releases.judging import FOLDER
from harness.releases.overlays import overlay
from harness.system.cache_directory import default_cache_directory
from tests.releases.page import page

_ROOT = Path(__file__).parents[2]
RECORDS, PAGE = _ROOT / "fixtures" / "releases.json", _ROOT / "docs" / "releases.md"
PACKAGE = "transformers"
_SECONDS = 1800  # for one release on a busy machine; idle, it takes under two minutes


def main(names: list[str]) -> int:
    """Examine the releases, write records and page, and return the exit code."""
    console = Console(stderr=True)
    try:
        releases = [Version(name) for name in names] or minor_releases(_oldest())
    except CannotRun as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 2
    kept = json.loads(RECORDS.read_text(encoding="utf-8")) if names and RECORDS.exists() else {}
    failed = []
    with Progress(console=console) as progress:
        task = progress.add_task("", total=len(releases))
        for release in releases:
            progress.update(task, description=f"{PACKAGE} {release}")
            try:
                kept[str(release)] = examined(release)
            except (CannotRun, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                kept.pop(str(release), None)
                failed.append(f"{PACKAGE} {release} could not be examined: {error}")
            else:
                _write(kept)  # at once: an interrupt loses one release at most
            progress.advance(task)
    wrong = [
        f"{PACKAGE} {release}, {name}: {text}"
        for release, record in kept.items()
        for name, cell in record["cells"].items()
        for text in cell["ours"]
    ]
    for line in (*failed, *wrong):
        console.print(line, markup=False, soft_wrap=True)
    return 2 if failed else 1 if wrong else 0


def _write(kept: dict[str, Any]) -> None:
    ordered = {name: kept[name] for name in sorted(kept, key=Version)}
    RECORDS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(list(ordered.values())), encoding="utf-8")


def examined(release: Version) -> dict[str, Any]:
    """Return the record of a release's examination, made by a process of its own with the release's overlay."""
    requirement = Requirement(f"{PACKAGE}=={release}")
    path = overlay([requirement], default_cache_directory() / FOLDER, lambda step: None).path
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record.json"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(each) for each in (path, _ROOT) if each is not None),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        with (Path(scratch) / "log").open("w+", encoding="utf-8") as log:
            try:
                subprocess.run(
                    [sys.executable, "-P", "-m", "tests.releases.examination", str(record)],
                    cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    check=True, timeout=_SECONDS,
                )  # fmt: skip
            except subprocess.CalledProcessError:
                log.seek(0)
                sys.stderr.write(log.read())
                raise
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if content["transformers"] != str(release):
            raise subprocess.CalledProcessError(1, f"transformers {content['transformers']} ran in its place")
        return content


def minor_releases(oldest: Version) -> list[Version]:
    """Return the newest release of each minor version from `oldest` on that the package index has, oldest first.

    Raises CannotRun where the index does not say.
    """
    return list({each.release[:2]: each for each in stable_releases(PACKAGE) if each >= oldest}.values())


def _oldest() -> Version:
    """Return the oldest release that `pyproject.toml` allows."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = (each for each in map(Requirement, project["dependencies"]) if each.name == PACKAGE)
    return min(Version(each.version) for each in requirement.specifier if each.operator == ">=")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
