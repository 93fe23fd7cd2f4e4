"""Tests of the examination of a release, and of its page."""

from pathlib import Path

import pytest

from pruning.remote.hollow_modules import SkippedAttention
from tests.releases import examination
from tests.releases.cases import PLANS
from tests.releases.examination import Cell, caches, examine
from tests.releases.page import page


def _right() -> None:
    pass


def _wrong() -> None:
    raise AssertionError("logits are off\nby far")


def test_whose_failure_it_is() -> None:
    """A case is right, or upstream's failure where stock fails, too, or ours."""
    cell = examine(iter([("a", _right, _wrong), ("b", _wrong, _wrong), ("c", _wrong, _right)]))
    assert cell == Cell(1, ["b: AssertionError: logits are off"], ["c: AssertionError: logits are off"])


@pytest.mark.parametrize("planted", [False, True], ids=["sound", "planted"])
def test_caches(planted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cache is right; planted, an attention of layer 0 that records nothing is wrong, and not by upstream."""
    monkeypatch.setattr(examination, "PLANS", {"layer 0": PLANS["layer 0"]})
    if planted:
        monkeypatch.setattr(SkippedAttention, "record_tokens", lambda *arguments: None)
    cell = examine(caches(tmp_path))
    assert bool(cell.ours) is planted, cell
    assert not planted or {text.split(":")[0] for text in cell.ours} >= {
        "layer 0, dynamic cache, one step at a time",
        "layer 0, static cache, one step at a time",
        "layer 0, generate, dynamic",
    }


def test_the_page() -> None:
    """The page has a row for each release, and tells whose failure is whose."""
    cell = {"right": 2, "upstream": ["b: it | fails"], "ours": ["c: `x`"]}
    text = page(
        [{"transformers": "5.0.0", "cells": {"exact": {"right": 3, "upstream": [], "ours": []}, "caches": cell}}]
    )
    assert "| 5.0.0 | 3 right | 2 right, 1 wrong in stock, too, **1 wrong** |" in text
    assert "* **5.0.0, caches**, stock: `b: it | fails`\n" in text
    assert "* **5.0.0, caches**, ours: `c: 'x'`\n" in text
