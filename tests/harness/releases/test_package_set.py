"""What `--with` takes, and what it refuses in one line."""

import pytest

from harness.errors import CannotRun
from harness.releases.package_set import is_pinned, read_set

pytestmark = pytest.mark.newest


def test_several_packages_in_one_set() -> None:
    """Requirements are separated by spaces, however many."""
    assert [str(each) for each in read_set("  accelerate==1.14.0   transformers>=5.20,<6 ")] == [
        "accelerate==1.14.0", "transformers<6,>=5.20",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo=1", "'foo=1' is not a requirement"),
        ("transformers == 5.23.0", "'==' is not a requirement"),
        ("", "a set names no package"),
        ("foo@file:///tmp/foo.whl", "names an address"),
        ("torch==2.0", "'torch==2.0': torch is shared"),
        ("PruneCheck", "'PruneCheck': prunecheck is shared"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    """What is not a requirement of a package by name, or names what every set shares, is refused in one line."""
    with pytest.raises(CannotRun) as caught:
        read_set(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [("a==1", True), ("a==1.*", False), ("a", False), ("a>=1,==1", False)])
def test_what_is_pinned(text: str, expected: bool) -> None:
    """Only one exact release leaves no choice."""
    assert is_pinned(read_set(text)[0]) is expected
