"""Which releases there are, by the index of the user's pip."""

import pytest
from packaging.version import Version

from harness.errors import CannotRun
from harness.releases.index import between, stable_releases
from tests.harness.releases.packages import Index

pytestmark = pytest.mark.newest

RELEASES = [Version(text) for text in ("1.0", "1.2", "1.10", "2.0")]


def test_stable_releases_in_order(index: Index) -> None:
    """Stable releases are told in the order of versions, not of letters; others are not."""
    for version in ("1.10", "1.2", "2.0rc1", "1.0", "2.0.dev1"):
        index.add("fakepkg", version)
    assert [str(version) for version in stable_releases("FakePkg")] == ["1.0", "1.2", "1.10"]


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("nothing-of-this-name", "No matching distribution found for nothing-of-this-name"),
        ("fakepkg==1", "'fakepkg==1' is not the name of a package"),
        ("torch", "torch is shared"),
    ],
)
def test_packages_that_cannot_be_searched(index: Index, package: str, said: str) -> None:
    """An unknown package, what is not a name, and what every set shares are refused in one line."""
    with pytest.raises(CannotRun, match=said):
        stable_releases(package)


def test_releases_between_two() -> None:
    """Both ends belong to a search; `latest` is the newest stable release."""
    assert between(RELEASES, "fakepkg", "1.2", "latest") == RELEASES[1:]
    assert between(RELEASES, "fakepkg", "1.0", "1.10") == RELEASES[:3]


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("1.3", "2.0", "--good 1.3 is not a stable release of fakepkg that the index has: near it are 1.0, 1.2, 1.10"),
        ("1.0", "x", "--bad x is not a version: write, for one, 2.0, or latest"),
        ("2.0", "1.0", "--bad 1.0 is not newer than --good 2.0: name an older one as good"),
        ("latest", "latest", "--bad 2.0 is not newer than --good 2.0: name an older one as good"),
    ],
)
def test_ends_that_are_refused(good: str, bad: str, said: str) -> None:
    """An end that is not a release, and ends in the wrong order, are refused in one line."""
    with pytest.raises(CannotRun) as caught:
        between(RELEASES, "fakepkg", good, bad)
    assert str(caught.value) == said
