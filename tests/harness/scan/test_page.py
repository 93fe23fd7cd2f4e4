"""The command `scan` writes the page of its record."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.planning.scan.page import scan_page
from harness.planning.scan.record import Scan
from harness.tiny import TinySpec
from pruning import PrunePlan
from tests.harness.checks.cases import write_tokenizer
from tests.harness.command_line import run

pytestmark = pytest.mark.newest


def test_page_of_the_command(
    tiny_checkpoints: Callable[..., tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is made of what is in the JSON alone; where it cannot be written, nothing is measured."""
    base, _ = tiny_checkpoints(TinySpec(layers=3, vocabulary_size=320), PrunePlan(self_attn=(1,), mlp=(0,)))
    write_tokenizer(base)
    text = tmp_path / "text.txt"
    text.write_text("A short text that is long enough. " * 8)
    command = ("scan", base, "--out", tmp_path / "out", "--text", text, "--tokens", "64", "--metric", "nll")
    assert run(monkeypatch, *command, "--html", tmp_path / "nowhere" / "scan.html") == 2
    assert not (tmp_path / "out").exists()
    files = ("--json", tmp_path / "scan.json", "--html", tmp_path / "scan.html")
    assert run(monkeypatch, *command, *files) == 0
    page = (tmp_path / "scan.html").read_text(encoding="utf-8")
    assert page == scan_page(Scan.from_file(tmp_path / "scan.json"))
    assert "What is least missed" in page
