"""The system's file cache: what is in it is told, and what is dropped is gone, or it is said why not."""

import mmap
from pathlib import Path

import pytest

from harness.bench.file_cache import cached_share, drop, warm_up

PAGES = 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of some pages, which lies in the cache."""
    path = tmp_path / "weights"
    path.write_bytes(b"x" * PAGES * mmap.PAGESIZE)
    warm_up([path])
    return path


def test_warm_and_cold(file: Path) -> None:
    """A file that was read is in the cache; one that was dropped is not, where the file system allows that."""
    assert cached_share(file) == 1
    reason = drop([file])
    if reason is None:
        share = cached_share(file)
        assert share is not None
        assert share <= 0.01
        warm_up([file])
        assert cached_share(file) == 1
    else:  # a file system in memory keeps what it has
        assert cached_share(file) == 1
        assert "stayed in the file cache" in reason


def test_what_is_in_use_stays(file: Path) -> None:
    """Pages that a process has mapped cannot be dropped, and the file that they are of is named."""
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == PAGES * ord("x")
        assert drop([file]) == "100% of weights stayed in the file cache: another process may have it open"


def test_empty_file(tmp_path: Path) -> None:
    """A file without pages has none in the cache."""
    (tmp_path / "empty").touch()
    assert cached_share(tmp_path / "empty") == 0
    assert drop([tmp_path / "empty"]) is None
