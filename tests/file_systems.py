"""File systems of their own, for tests that need one which is small, or read-only: fixtures of every test."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return a function that mounts at a new directory, given mount's own options; all is unmounted at the end."""
    mounted: list[Path] = []

    def do(*options: object) -> Path:
        place = tmp_path / f"mounted-{len(mounted)}"
        place.mkdir()
        process = subprocess.run(["mount", *map(str, options), str(place)], capture_output=True, text=True, check=False)
        if process.returncode:
            pytest.skip(f"no file system can be mounted here: {process.stderr.strip()}")
        mounted.append(place)
        return place

    if os.geteuid():
        pytest.skip("only root may mount a file system")
    yield do
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount_read_only(mount: Mount, folder: Path) -> Path:
    """Return a place where a folder is seen, and cannot be written."""
    place = mount("--bind", "-o", "ro", folder)
    if os.access(place, os.W_OK):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    return place
