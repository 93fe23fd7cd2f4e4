"""Tiny packages in a folder that pip takes for its index: no network, and every release is ours."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.releases.judging import Listener, Request
from harness.releases.set_record import SetRecord
from tests.harness.reports import FAULT, failed, passed, report_of


class Index:
    """A folder of wheels; the settings of pip lead to it, and the cache is beside it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "wheels"
        self.cache = folder / "cache"
        self.folder.mkdir()
        for name in ("PIP_CONSTRAINT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.folder))
        monkeypatch.setenv("PRUNECHECK_CACHE", str(self.cache))

    def add(
        self, name: str, version: str, *, requires: Sequence[str] = (), python: str = ">=3.8", source: str = ""
    ) -> None:
        """Put a release of a package into the index, which has one module."""
        distribution = name.replace("-", "_")
        metadata = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
        folder = f"{distribution}-{version}.dist-info"
        with zipfile.ZipFile(self.folder / f"{distribution}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{distribution}.py", source)
            wheel.writestr(f"{folder}/METADATA", "\n".join(["Metadata-Version: 2.1", *metadata, ""]))
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")

    def overlays(self) -> list[str]:
        """Return the names of what lies where overlays do, the lock apart."""
        folder = self.cache / "releases" / "overlays"
        return sorted(path.name for path in folder.iterdir() if path.name != "lock") if folder.exists() else []


class FakeJudge:
    """Judges without a process: by which release of a package it is; notes what it was asked."""

    def __init__(self, faulty_from: int, *, unable: Sequence[int] = ()) -> None:
        self.asked: list[str] = []
        self._faulty_from = faulty_from
        self._unable = unable

    def __call__(self, packages: str, request: Request, listener: Listener) -> SetRecord:
        """Find a fault from one major version on, and be unable to judge some."""
        self.asked.append(packages)
        listener.step(0.5, "half")
        listener.warn("the checkpoint has code of its own")
        number = int(packages.rpartition("==")[2].partition(".")[0])
        if number in self._unable:
            return SetRecord(packages, {}, None, "it does not install", 0.1)
        return SetRecord(packages, {"fakepkg": str(number)}, report(number >= self._faulty_from), None, 0.1)


def report(is_faulty: bool = False, **other: Any) -> Any:
    """Return a report of two checks, sound or faulty."""
    cached = "plain-float32.cache.dynamic.beam"
    checks = [passed("stored.keys"), failed(cached) if is_faulty else passed(cached)]
    return report_of(*checks, **({"faults": (FAULT,)} if is_faulty else {}), **other)
