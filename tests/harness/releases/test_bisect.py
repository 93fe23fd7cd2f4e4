"""The first release at which a judgement changes: found in few steps, resumed, and told with what changed."""

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from harness.errors import CannotRun
from harness.releases import bisect
from harness.releases.bisect import run_bisect
from harness.releases.judging import Judge, Listener, Request
from harness.releases.page import bisection_page
from harness.releases.record import Bisection
from harness.releases.set_record import SetRecord
from harness.releases.view import print_bisection
from harness.report.outcomes import EXIT_CODES
from tests.harness.command_line import run
from tests.harness.releases.packages import FakeJudge, Index, report
from tests.harness.reports import failed, passed, printed, report_of

pytestmark = pytest.mark.newest


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """Return the releases that the index has: 100, unless a test takes some away."""
    monkeypatch.setenv("PRUNECHECK_CACHE", str(tmp_path / "cache"))
    releases = [Version(str(number)) for number in range(1, 101)]
    monkeypatch.setattr(bisect, "stable_releases", lambda _: releases)
    return releases


def searched(pair: tuple[Path, Path], judge: Judge, **options: str) -> Bisection:
    """Search all releases."""
    return run_bisect(pair[1], package="fakepkg", good="1", judge=judge, **options)


@pytest.mark.parametrize("changed", [2, 37, 64, 100])
def test_the_first_release_is_found(released: list[Version], pair: tuple[Path, Path], changed: int) -> None:
    """The release at which the verdict changes is found by as many judgements as its logarithm, and the two ends."""
    judge = FakeJudge(changed)
    found = searched(pair, judge)
    assert (found.last, found.changed) == (str(changed - 1), str(changed))
    assert len(judge.asked) <= 2 + math.ceil(math.log2(len(released)))
    assert len(set(judge.asked)) == len(judge.asked)
    assert found.exit_code == 0
    assert [change.name for change in found.comparison.checks] == ["plain-float32.cache.dynamic.beam"]
    assert [change.after.cause for change in found.comparison.faults] == [report(True).faults[0].cause]


@settings(max_examples=50)
@given(changed=st.integers(2, 30), unable=st.sets(st.integers(2, 29)))
def test_releases_that_cannot_be_judged(pair: tuple[Path, Path], changed: int, unable: set[int]) -> None:
    """Around releases that cannot be judged the nearest are; what is left open is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bisect, "stable_releases", lambda _: [Version(str(number)) for number in range(1, 31)])
        patch.setattr(bisect, "keeping", lambda judge, _: judge)
        found = searched(pair, FakeJudge(changed, unable=sorted(unable)))
    able = [number for number in range(1, 31) if number not in unable]
    assert found.last == str(max(number for number in able if number < changed))
    assert found.changed == str(min(number for number in able if number >= changed))
    assert set(map(int, found.between)) <= unable
    assert found.exit_code == (EXIT_CODES["undecided"] if found.between else 0)


def test_resumed(released: list[Version], pair: tuple[Path, Path]) -> None:
    """Interrupted, a search goes on where it was; done, it asks for nothing more."""

    class Interrupted(FakeJudge):
        def __call__(self, packages: str, request: Request, listener: Listener) -> SetRecord:
            if len(self.asked) == 4:
                raise SystemExit(143)
            return super().__call__(packages, request, listener)

    first, second, third = Interrupted(37), FakeJudge(37), FakeJudge(37)
    with pytest.raises(SystemExit):
        searched(pair, first)
    found = searched(pair, second)
    assert found.changed == "37"
    assert not set(first.asked) & set(second.asked)
    assert searched(pair, third) == found
    assert third.asked == []


def test_what_is_judged_anew(released: list[Version], pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing that was kept is used for a checkpoint that changed, for other options, or where nothing was judged."""
    copy = shutil.copytree(pair[1], tmp_path / "slim")
    del released[2:]
    searched((pair[0], copy), FakeJudge(2))
    other = FakeJudge(2)
    searched((pair[0], copy), other, keyword="stored")
    assert len(other.asked) == 2
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    changed = FakeJudge(2, unable=[2])
    with pytest.raises(CannotRun, match="fakepkg 2 cannot be judged, so nothing can be searched: it does not install"):
        searched((pair[0], copy), changed)
    again = FakeJudge(2)
    searched((pair[0], copy), again)
    assert again.asked == ["fakepkg==2"]


def test_judgements_that_cannot_be_kept(released: list[Version], pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Where judgements cannot be kept, the message names the folder and the remedy."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CannotRun, match=r"judged/.* cannot be made: .*; set PRUNECHECK_CACHE to another"):
        searched(pair, FakeJudge(37))


def test_nothing_to_find(released: list[Version], pair: tuple[Path, Path]) -> None:
    """Where both ends are judged alike, that is said, and what they came to."""
    with pytest.raises(CannotRun, match="fakepkg 1 and 100 are judged alike, sound: there is nothing to find"):
        searched(pair, FakeJudge(1000))


def test_a_named_check(released: list[Version], pair: tuple[Path, Path]) -> None:
    """With a keyword the outcomes of checks are compared: two releases that fail in different checks are not alike."""

    def judge(packages: str, _: Request, __: Listener) -> SetRecord:
        is_later = int(packages.rpartition("==")[2]) >= 50
        checks = (failed("a.load"), passed("b.load")) if is_later else (passed("a.load"), failed("b.load"))
        return SetRecord(packages, {}, report_of(*checks), None, 0.1)

    found = searched(pair, judge, keyword="cache or keys")
    assert found.changed == "50"
    with pytest.raises(CannotRun, match="judged alike, faulty"):
        searched(pair, judge)


def test_the_record_is_what_json_holds(released: list[Version], pair: tuple[Path, Path]) -> None:
    """A search that is written and read is the same; what is something else is refused in one line."""
    found = searched(pair, FakeJudge(37))
    content = json.loads(json.dumps(found.to_dict()))
    assert Bisection.from_dict(content) == found
    for broken in (
        None, content | {"last": "1000"}, content | {"changed": 3}, content | {"judged": {}}, {"kind": "bisection"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not a bisection of schema 1"):
            Bisection.from_dict(broken)


def test_what_is_told(released: list[Version], pair: tuple[Path, Path]) -> None:
    """Terminal and page say which release it is, which check changed, and the cause."""
    found = searched(pair, FakeJudge(37))
    cause = report(is_faulty=True).faults[0].cause
    for text in (printed(print_bisection, found), bisection_page(found)):
        for said in (
            "the verdict changes at fakepkg 37; 36 is the last release before the change",
            "plain-float32.cache.dynamic.beam",
            cause,
        ):
            assert said.replace("'", "&#39;") in text.replace("'", "&#39;").replace("<wbr>", "")


def test_a_release_that_is_not_there(
    index: Index, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An end that the index does not have is one line on stderr, and exit code 2."""
    index.add("fakepkg", "1.0")
    assert run(monkeypatch, "bisect", pair[1], "--package", "fakepkg", "--good", "0.9") == 2
    said = "prunecheck: --good 0.9 is not a stable release of fakepkg that the index has: near it are 1.0\n"
    assert capfd.readouterr().err == said
