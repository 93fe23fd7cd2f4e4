"""docs/guarantees.md: each promise names a test that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (.+) \| `(\S+)::(\w+)` \|$", (ROOT / "docs" / "guarantees.md").read_text("utf-8"), re.MULTILINE)


def test_every_row_names_a_test() -> None:
    """Each row of the tables, but for their heads, is a promise and a test."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise ")]
    assert len(lines) == len(ROWS) > 40


@pytest.mark.parametrize(("promise", "path", "name"), ROWS, ids=[name for _, _, name in ROWS])
def test_the_test_is_there(promise: str, path: str, name: str) -> None:
    """A promise's test is a function of the named file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in functions, promise
