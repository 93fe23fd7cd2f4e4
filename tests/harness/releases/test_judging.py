"""One judgement in a process of its own, which sees the packages of its overlay."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.releases import judging
from harness.releases.judging import Listener, Request, judge_set
from harness.system.signals import Ended
from tests.harness.releases.packages import Index

pytestmark = pytest.mark.newest

KEYS = "stored.keys"


def request_of(pair: tuple[Path, Path], keyword: str = KEYS) -> Request:
    """Return a request for few checks."""
    return Request(str(pair[1]), str(pair[0]), allow_partial=True, keyword=keyword)


def listening(step: Callable[[float, str], None] = lambda *_: None) -> tuple[Listener, list[str]]:
    """Return a listener, and what it is warned of."""
    warnings: list[str] = []
    return Listener(step, warnings.append), warnings


def test_a_judgement(index: Index, pair: tuple[Path, Path]) -> None:
    """The report is that of `check`; the versions are those that the judging process sees."""
    index.add("fakepkg", "1.0", requires=["fakelib"])
    index.add("fakelib", "2.0")
    steps: list[tuple[float, str]] = []
    listener, warnings = listening(lambda share, text: steps.append((share, text)))
    record = judge_set("fakepkg==1.0", request_of(pair), listener)
    assert record.reason is None
    assert record.report is not None
    assert record.verdict == "sound"
    assert record.versions == {"fakepkg": "1.0", "fakelib": "2.0"}
    assert [check.name for check in record.report.checks] == [KEYS]
    assert steps == [(0, "resolving"), (0, "installing"), (0, "starting"), (0.0, KEYS)]
    assert warnings == []


def test_what_is_wrong_with_a_request(index: Index, pair: tuple[Path, Path]) -> None:
    """What `check` refuses is refused, in its own words."""
    record = judge_set("rich", request_of(pair, "no-such-check"), listening()[0])
    assert record.reason == "no check has a name that matches 'no-such-check'"
    assert record.versions.keys() == {"rich"}
    assert record.exit_code == 2


def test_an_overlay_that_is_not_seen(index: Index, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process does not see the overlay's version, nothing is judged under a wrong name."""
    index.add("fakepkg", "1.0")
    monkeypatch.setattr(judging, "_path", lambda _: {})
    record = judge_set("fakepkg==1.0", request_of(pair), listening()[0])
    assert record.reason == (
        "fakepkg 1.0 is installed, but a process that is given it finds fakepkg not installed"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('a broken release')", "the judge itself failed: RuntimeError: a broken release"),
        ("import os; os.kill(os.getpid(), 9)", "the process that judges was ended by SIGKILL; is there enough memory?"),
        ("raise SystemExit(7)", "the judge itself failed: exit code 7"),
    ],
)
def test_a_judge_that_dies(index: Index, pair: tuple[Path, Path], source: str, reason: str) -> None:
    """A release that breaks the judge has a reason of one line: how its traceback ends, or the signal that ended it."""
    index.add("rich", "99.0", source=source)
    record = judge_set("rich==99.0", request_of(pair), listening()[0])
    assert record.reason == reason
    assert record.versions == {"rich": "99.0"}


def test_ending_the_parent_ends_the_judge(index: Index, pair: tuple[Path, Path]) -> None:
    """A parent that is told to end takes the judging process with it, and leaves no temporary folder behind."""
    judges: list[psutil.Process] = []
    others = psutil.Process().children()  # of earlier tests, such as the tracker of shared memory

    def end(_: float, text: str) -> None:
        if text == KEYS:
            judges.extend(child for child in psutil.Process().children() if child not in others)
            raise Ended(signal.SIGTERM)

    with pytest.raises(Ended):
        judge_set("rich", request_of(pair), listening(end)[0])
    assert len(judges) == 1
    assert not judges[0].is_running()


def test_the_judge_ends_when_nobody_listens(pair: tuple[Path, Path]) -> None:
    """A judge whose parent was killed ends at the next thing that it has to say."""
    content = json.dumps({"packages": {}, "check": request_of(pair).to_dict()})
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run(
        [sys.executable, "-P", "-m", "harness.releases.child"],
        input=content.encode(),
        stdout=writing,
        stderr=subprocess.DEVNULL,
        timeout=100,
        check=False,
    )
    os.close(writing)
    assert finished.returncode != 0
