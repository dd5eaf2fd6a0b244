"""docs/explanation/security.md names tests and modules that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_the_page_names_a_test_for_each_row() -> None:
    rows = re.findall(r"(?m)^\| .*\|$", PAGE.split("## Who may do what")[1].split("## Bounds")[0])
    rows = [row for row in rows if not row.endswith("| mechanism | test |")]
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row] == []


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


@pytest.mark.parametrize(
    "module", sorted(set(re.findall(r"`((?:rails|http|core)/[\w/]+\.py)`", PAGE)))
)
def test_a_named_module_exists(module: str) -> None:
    assert (ROOT / "src" / "truing" / module).is_file()
