"""Several sets of packages: each is judged, whatever becomes of the others."""

import json
from pathlib import Path

import pytest

from harness.errors import CannotRun
from harness.releases.matrix import run_matrix
from harness.releases.page import matrix_page
from harness.releases.record import Matrix
from harness.releases.set_record import Row, SetRecord, check_rows
from harness.releases.view import print_matrix
from harness.report.outcomes import EXIT_CODES, Coverage
from tests.harness.command_line import run
from tests.harness.releases.packages import FakeJudge, Index, report
from tests.harness.reports import printed

pytestmark = pytest.mark.newest

OPEN = report(coverage=Coverage(keys=True, bytes=None, logits=False))


def record(verdict: str) -> SetRecord:
    """Return the record of a set that came to something."""
    reports = {"sound": report(), "faulty": report(is_faulty=True), "undecided": OPEN}
    found = reports.get(verdict)
    return SetRecord(f"fakepkg=={verdict}", {"fakepkg": "1"}, found, None if found else "it does not install", 1.0)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["sound", "sound"], 0),
        (["sound", "undecided"], EXIT_CODES["undecided"]),
        (["undecided", "could not run"], 2),
        (["could not run", "faulty", "undecided"], 1),
    ],
)
def test_exit_codes(verdicts: list[str], code: int) -> None:
    """What is worst counts: faulty, then what could not run, then undecided."""
    assert Matrix("slim", None, tuple(map(record, verdicts))).exit_code == code


def test_each_set_is_judged(pair: tuple[Path, Path]) -> None:
    """Each set is judged once, in the order in which it is named; what cannot be is told, and the others go on."""
    judge, warnings, steps = FakeJudge(3, unable=[1]), list[str](), list[tuple[float, int, str]]()
    matrix = run_matrix(
        pair[1],
        sets=["fakepkg==1", "fakepkg==2", " fakepkg==2 ", "fakepkg==3"],
        judge=judge,
        warn=warnings.append,
        progress=lambda done, total, text: steps.append((done, total, text)),
    )
    assert judge.asked == ["fakepkg==1", "fakepkg==2", "fakepkg==3"]
    assert [each.verdict for each in matrix.sets] == ["could not run", "sound", "faulty"]
    assert warnings == ["the checkpoint has code of its own", "fakepkg==1: it does not install"]
    assert steps[-1] == (2.5, 3, "fakepkg==3: half")


def test_what_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A checkpoint that is not there, and no set at all, are refused before anything is installed."""
    with pytest.raises(CannotRun, match="no directory"):
        run_matrix(tmp_path / "nowhere", sets=["fakepkg==1"], judge=FakeJudge(2))
    with pytest.raises(CannotRun, match="no set of packages"):
        run_matrix(pair[1], sets=[], judge=FakeJudge(2))


def test_the_record_is_what_json_holds() -> None:
    """A matrix that is written and read is the same; what is something else is refused in one line."""
    matrix = Matrix("slim", "base", tuple(map(record, ("sound", "faulty", "could not run"))))
    content = json.loads(json.dumps(matrix.to_dict()))
    assert Matrix.from_dict(content) == matrix
    for broken in (
        None, [], {"kind": "matrix"}, content | {"kind": "bisection"}, content | {"schema": 0}, content | {"base": 1},
        content | {"sets": [content["sets"][0] | {"report": None}]}, content | {"sets": [{"packages": "a"}]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not a matrix of schema 1") as caught:
            Matrix.from_dict(broken)
        assert "\n" not in str(caught.value)


def test_the_table() -> None:
    """Checks of one group that came to the same under each set stand in one row; what differs has a row of its own."""
    sets = tuple(map(record, ("sound", "faulty")))
    assert check_rows(sets) == [
        Row(("stored.keys",), ("passed", "passed")),
        Row(("plain-float32.cache.dynamic.beam",), ("passed", "failed")),
    ]
    matrix = Matrix("slim", None, (*sets, record("could not run"), record("undecided")))
    text = printed(print_matrix, matrix)
    for said in (
        "could not run: it does not install", "faulty: 1 of 2 checks failed", "fault under fakepkg==faulty",
        "bytes under fakepkg==undecided   no check of these was among those that were asked for",
    ):  # fmt: skip
        assert said in text


def test_the_page_says_it_too() -> None:
    """The page has verdicts, faults and checks, and escapes what strangers wrote."""
    matrix = Matrix("<script>", None, (record("faulty"), record("could not run")))
    page = matrix_page(matrix)
    assert "<script>" not in page
    for said in ("it does not install", "Prune the base again with prunecheck.", "fakepkg==faulty", "Every check"):
        assert said in page


@pytest.mark.newest
def test_the_command(
    index: Index,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Sets that cannot be judged are one line each on stderr, the others are judged, and the exit code is 2."""
    index.add("fakepkg", "1.0")
    index.add("fakepkg", "3.0", python=">=4")
    sets = ("fakepkg==1.0", "fakepkg==2.0", "fakepkg==3.0", "fakepkg=1")
    options = [word for packages in sets for word in ("--with", packages)]
    files = (tmp_path / "matrix.json", tmp_path / "matrix.html")
    command = ("matrix", pair[1], "--base", pair[0], *options, "-k", "stored.keys", "--allow-partial")
    assert run(monkeypatch, *command, "--json", files[0], "--html", files[1]) == 2
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == list(sets[1:])
    assert all(line.startswith("prunecheck: ") for line in lines)
    matrix = Matrix.from_file(files[0])
    assert [each.verdict for each in matrix.sets] == ["sound", *["could not run"] * 3]
    assert matrix.sets[0].versions == {"fakepkg": "1.0"}
    assert files[1].read_text(encoding="utf-8") == matrix_page(matrix)
    assert "stored.keys" in captured.out
    # A sound variant: what can be judged is judged, and nothing is on stderr.
    assert run(monkeypatch, *command[:6], *command[-3:]) == 0
    assert capfd.readouterr().err == ""


def test_options_are_refused_before_any_work(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An unknown way of loading is refused once, and no set is looked at."""
    assert run(monkeypatch, "matrix", pair[1], "--with", "fakepkg==1", "--dtype", "float8") == 2
    assert capfd.readouterr().err.startswith("prunecheck: --dtype float8 is unknown")
