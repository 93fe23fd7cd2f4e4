"""The command `plan`: what it writes and says, how it goes on after an interruption, errors of one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from harness.errors import CannotRun
from harness.planning.search.page import search_page
from harness.planning.search.record import Search
from harness.planning.search.run import search_plan
from harness.planning.sweep.journal import JOURNAL_FILE
from harness.reference.models import load_stock, reference_logits, without_sublayers
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, prune_checkpoint, removed_bytes
from tests.harness.command_line import run
from tests.harness.scan.scanned import scannable, write_text

pytestmark = pytest.mark.newest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock checkpoint."""
    return scannable(tmp_path_factory.mktemp("searched") / "base")


def found(search: Search) -> tuple[Any, ...]:
    """Return what a search came to, which does not depend on where and when."""
    return search.windows, search.steps


def test_plan(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Plan, record and pictures are in the directory, `prune` takes the plan, the page is made of the record alone."""
    monkeypatch.chdir(tmp_path)
    command = ("plan", base, "--drop", "2", "--tokens", "300", "--json", "search.json", "--html", "search.html")
    assert run(monkeypatch, *command) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(f"next: prunecheck prune {base} DST --plan plan/plan.json\n")
    names = {JOURNAL_FILE, "plan.json", "search.json", "trade-off.png", "trade-off.svg"}
    assert {path.name for path in (tmp_path / "plan").iterdir()} == names
    search = Search.from_file(tmp_path / "search.json")
    assert search == Search.from_file(tmp_path / "plan" / "search.json")
    assert (tmp_path / "search.html").read_text(encoding="utf-8") == search_page(search)
    assert PrunePlan.from_file(tmp_path / "plan" / "plan.json") == search.plan
    assert str(search.plan) in captured.out
    assert "Search: " in repr(search)
    assert run(monkeypatch, "prune", base, "slim", "--plan", "plan/plan.json", "--no-sync") == 0
    shares = [search.kept_share(step) for step in search.steps]
    assert shares[-1] == 1 - removed_bytes(base, search.plan) / search.bytes


def test_greedy_is_what_single_evaluations_find(base: Path, tmp_path: Path) -> None:
    """Each step is the best of the stock model's evaluations without each sub-layer, and has their number."""
    text = write_text(tmp_path / "text", 2 * 128)
    search = search_plan(base, out=tmp_path / "out", drop=3, texts=[text])
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(text.read_text(encoding="utf-8")).ids).view(2, 128)
    with quiet_libraries():
        model: Any = load_stock(base)

    def nll(plan: PrunePlan) -> float:
        with without_sublayers(model, plan.self_attn, plan.mlp):
            logits = reference_logits(model, ids)[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), ids[:, 1:].flatten()))

    plan = PrunePlan()
    for step in search.steps:
        singles = [PrunePlan(**{name: (index,)}) for index in range(3) for name in ("self_attn", "mlp")]
        costs = {plan | each: nll(plan | each) for each in singles if not (each - plan).is_empty}
        plan = PrunePlan.from_dict(step.plan)
        assert costs[plan] <= min(costs.values()) + 1e-5
        assert sum(value or 0 for value in step.nll) / 2 == pytest.approx(costs[plan], abs=1e-5)


@pytest.mark.parametrize("method", ["greedy", "one-shot", "beam"])
def test_going_on(base: Path, tmp_path: Path, method: str) -> None:
    """Cut anywhere, within a line, too, a search goes on to the same steps and numbers; nothing is evaluated twice."""
    text = write_text(tmp_path / "text", 2 * 128)
    whole = search_plan(base, out=tmp_path / "whole", drop=3, method=method, width=2, texts=[text])
    journal = (tmp_path / "whole" / JOURNAL_FILE).read_bytes()
    lines = journal.splitlines(keepends=True)
    for kept in range(1, len(lines)):
        out = tmp_path / f"cut-{kept}"
        out.mkdir()
        (out / JOURNAL_FILE).write_bytes(b"".join(lines[:kept]) + lines[kept][: kept * 7])
        again = search_plan(base, out=out, drop=3, method=method, width=2, texts=[text])
        assert found(again) == found(whole)
        assert (out / JOURNAL_FILE).read_bytes() == journal


def test_progress(base: Path, tmp_path: Path) -> None:
    """How much is done grows from layer to layer, also within a step, and ends with all that was needed."""
    told: list[tuple[float, int, str]] = []
    search_plan(
        base,
        out=tmp_path / "out",
        drop=2,
        texts=[write_text(tmp_path / "text", 2 * 128)],
        progress=lambda done, total, text: told.append((done, total, text)),
    )
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1] == 1 + 6 + 5
    assert len({each for each in done if 7 < each < 12}) == 2  # three layers, and after the last it is 12
    assert told[-1][2].startswith("on top of: ")


def test_budgets(base: Path, tmp_path: Path) -> None:
    """One directory serves several budgets; each is met, and a pruned checkpoint is searched for what it still has."""
    text = write_text(tmp_path / "text", 2 * 128)
    out = tmp_path / "out"
    by_bytes = search_plan(base, out=out, keep_bytes=0.8, texts=[text])
    shares = [by_bytes.kept_share(step) for step in by_bytes.steps]
    assert shares[-1] <= 0.8 < min([1.0, *shares[:-1]])
    rises = [by_bytes.rise(step).mean or 0 for step in by_bytes.steps]
    bound = max(0.01, *rises) + 0.01
    by_quality = search_plan(base, out=out, max_nll_rise=bound, texts=[text])
    assert all((by_quality.rise(step).mean or 0) <= bound for step in by_quality.steps)
    pruned = PrunePlan(self_attn=(0, 2), mlp=(1,))
    prune_checkpoint(base, tmp_path / "slim", pruned, sync=False)
    further = search_plan(tmp_path / "slim", out=tmp_path / "further", drop=3, texts=[text])
    assert further.plan | pruned == PrunePlan((0, 1, 2), (0, 1, 2))
    assert (further.plan & pruned).is_empty


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give one of --drop, --keep-bytes and --max-nll-rise, not none"),
        (("--drop", "1", "--keep-bytes", "0.9"), "not --drop and --keep-bytes"),
        (("--drop", "7"), "--drop 7 cannot be met: the checkpoint has 6 sub-layers to remove"),
        (("--drop", "0"), "--drop 0 cannot be met"),
        (("--keep-bytes", "0"), "--keep-bytes 0 cannot be met"),
        (("--keep-bytes", "nan"), "--keep-bytes nan cannot be met"),
        (("--max-nll-rise", "-1"), "--max-nll-rise -1.0 is no rise"),
        (("--drop", "1", "--method", "best"), "--method best is unknown: choose among greedy, one-shot, beam"),
        (("--drop", "1", "--text", "none.txt"), "--text none.txt cannot be read"),
    ],
)
def test_errors(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    """What cannot be done is said in one line, with exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "plan", base, *options) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_directory(base: Path, tmp_path: Path) -> None:
    """A directory of another text, or of a scan, is left as it is, and what to do is said."""
    out = tmp_path / "out"
    search_plan(base, out=out, drop=1, texts=[write_text(tmp_path / "text", 128)])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(CannotRun, match="holds a search of another text or --tokens: name another --out"):
        search_plan(base, out=out, drop=1, texts=[write_text(tmp_path / "other", 129)])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / JOURNAL_FILE).write_text(json.dumps({"kind": "measurements of a scan", "subject": {}}) + "\n")
    with pytest.raises(CannotRun, match="does not hold measurements of a search: name another --out"):
        search_plan(base, out=out, drop=1, texts=[tmp_path / "text"])


def test_record(base: Path, tmp_path: Path) -> None:
    """A record is read as it was written; what is none is said to be none, in one line."""
    search = search_plan(base, out=tmp_path / "out", drop=2, texts=[write_text(tmp_path / "text", 2 * 128)])
    content = json.loads(json.dumps(search.to_dict()))
    assert Search.from_dict(content) == search
    for broken in (
        {},
        {**content, "steps": []},
        {**content, "windows": content["windows"][:1]},
        {**content, "bytes": ""},
    ):
        with pytest.raises(ValueError, match=r"^not a search of schema 1[^\n]*$"):
            Search.from_dict(broken)
