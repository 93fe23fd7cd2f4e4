"""Overlays hold what the running environment lacks, and nothing else; each is complete or absent."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CannotRun
from harness.releases import overlays
from harness.releases.dependencies import needed, require_supported, shared_as_constraints
from harness.releases.overlays import Overlay, overlay
from harness.releases.package_set import read_set
from harness.releases.pip_runs import run_pip
from tests.harness.releases.packages import Index

pytestmark = pytest.mark.newest


def installed(index: Index, text: str) -> Overlay:
    """Return the overlay of a set."""
    return overlay(read_set(text), index.cache / "releases", lambda _: None)


def here() -> set[tuple[str, str]]:
    """Return what is installed in the running environment."""
    return {(each.name, each.version) for each in distributions()}


def test_what_an_overlay_holds(index: Index) -> None:
    """What is asked for and what it needs is in the overlay; what is here already, and torch, is not."""
    index.add("fakepkg", "1.0", requires=["fakelib>=2", "rich", "numpy"])
    index.add("fakelib", "2.1")
    before = here()
    made = installed(index, "fakepkg")
    assert made.packages == {"fakelib": "2.1", "fakepkg": "1.0"}
    assert made.path is not None
    assert {path.name.partition("-")[0] for path in made.path.iterdir()} == {
        "fakepkg.py",
        "fakelib.py",
        "fakepkg",
        "fakelib",
    }
    assert made.path.name.startswith(f"fakelib-2.1_fakepkg-1.0_torch-{version('torch')}_cpython-")
    assert here() == before


def test_what_is_here_needs_no_overlay(index: Index) -> None:
    """A set that the running environment satisfies installs nothing."""
    assert installed(index, f"rich=={version('rich')}") == Overlay({}, None)
    assert index.overlays() == []


def test_what_torch_alone_needs_is_left_out() -> None:
    """What is reached only through torch is not needed; what is reached in another way is, extras included."""
    resolved = {
        "fakepkg": ["torch>=1", "fakelib[fast]; python_version >= '3'", "old; python_version < '3'"],
        "fakelib": ["speed; extra == 'fast'", "slow; extra == 'slow'"],
    }
    names = needed(read_set("fakepkg"), resolved)
    assert {"fakepkg", "fakelib", "speed"} == names
    assert "sympy" in needed(read_set("sympy"), {})


def test_torch_stays_what_it_is(index: Index) -> None:
    """A package that wants another torch is refused, in one line that names both."""
    index.add("fakepkg", "1.0", requires=["torch<1"])
    with pytest.raises(CannotRun, match=rf"fakepkg==1.0.*torch=={version('torch')}".replace("+", r"\+")):
        installed(index, "fakepkg==1.0")
    assert index.overlays() == []


def test_what_prunecheck_does_not_run_on() -> None:
    """A release outside of what prunecheck's own metadata allows is refused before anything is asked for."""
    with pytest.raises(CannotRun, match=r"^prunecheck does not run on transformers==4\.0: it needs transformers"):
        require_supported(read_set("transformers==4.0"))
    require_supported(read_set(f"transformers=={version('transformers')} fakepkg==1"))
    assert any(line.startswith("transformers") for line in shared_as_constraints())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fakepkg==9", "Could not find a version that satisfies the requirement fakepkg==9"),
        ("fakepkg==3.0", "requires a different Python|needs Python"),
        ("fakepkg==1.0 fakelib==1.0", "Cannot install fakelib==1.0 and fakepkg==1.0 .*: "),
    ],
)
def test_sets_that_cannot_be_installed(index: Index, text: str, said: str) -> None:
    """An unknown release, one for another Python, and a contradiction are refused in one line; nothing is left."""
    index.add("fakepkg", "1.0", requires=["fakelib>=2"])
    index.add("fakepkg", "3.0", python=">=4")
    index.add("fakelib", "1.0")
    with pytest.raises(CannotRun, match=said) as caught:
        installed(index, text)
    assert "\n" not in str(caught.value)
    assert index.overlays() == []


def test_installed_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time a pinned set is asked for, pip is not."""
    index.add("fakepkg", "1.0")
    made = installed(index, "fakepkg==1.0")
    monkeypatch.setattr(overlays, "run_pip", lambda *_: pytest.fail("pip was asked again"))
    assert installed(index, "fakepkg==1.0") == made


def test_a_newer_release_is_found(index: Index) -> None:
    """A set that is not pinned is resolved each time: a new release is not hidden by the cache."""
    index.add("fakepkg", "1.0")
    assert installed(index, "fakepkg").packages == {"fakepkg": "1.0"}
    index.add("fakepkg", "1.1")
    assert installed(index, "fakepkg").packages == {"fakepkg": "1.1"}
    assert len(index.overlays()) == 2


@pytest.mark.parametrize("error", [CannotRun("no room"), SystemExit(143)])
def test_complete_or_absent(index: Index, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """An installation that fails, or is ended, leaves nothing that is taken for an overlay."""
    index.add("fakepkg", "1.0")

    def fail_later(*arguments: str) -> str:
        if "--target" in arguments:
            Path(arguments[arguments.index("--target") + 1], "half.py").write_text("")
            raise error
        return run_pip(*arguments)

    monkeypatch.setattr(overlays, "run_pip", fail_later)
    with pytest.raises(type(error)):
        installed(index, "fakepkg==1.0")
    assert index.overlays() == []
    monkeypatch.setattr(overlays, "run_pip", run_pip)
    assert installed(index, "fakepkg==1.0").packages == {"fakepkg": "1.0"}


def test_two_at_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that want the same overlay, one installs it, and the other waits for it."""
    index.add("fakepkg", "1.0")
    calls: list[Any] = []

    def counted(*arguments: str) -> str:
        calls.extend(argument for argument in arguments if argument == "--target")
        return run_pip(*arguments)

    monkeypatch.setattr(overlays, "run_pip", counted)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: installed(index, "fakepkg==1.0"), range(2))
    assert first == second
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written(index: Index) -> None:
    """Where the cache cannot be kept, the message names it and the remedy."""
    index.add("fakepkg", "1.0")
    index.cache.write_text("a file")
    with pytest.raises(CannotRun, match=r"cannot keep packages in .*: .*; set PRUNECHECK_CACHE"):
        installed(index, "fakepkg==1.0")
