"""TOML texts: their tables, and the lines of their keys."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError
from truing.core.toml_text import add_lines, find_key_lines, parse_toml

TEXT = """\
# [no.table] and no = "key"
title = "a [b] # c"
about = '''
[run]
limit = 3
'''
[run]
judges = ["a", # "x",
  "b = 3",
  {name = "c"},
]
"quoted key" = {deep = 1}
[data.safety]
spec = "x"
[[rule]]
check = "one"
[[rule]]
check = "two"
[rule.more]
x = [[1, 2],
  [3]]
"""


def test_every_key_has_its_line() -> None:
    lines = find_key_lines(TEXT)
    expected = {
        "title": 2,
        "about": 3,
        "run": 7,
        "run.judges": 8,
        "run.judges[0]": 8,
        "run.judges[1]": 9,
        "run.judges[2]": 10,
        "run.quoted key": 12,
        "data.safety.spec": 14,
        "rule[0]": 15,
        "rule[0].check": 16,
        "rule[1].check": 18,
        "rule[1].more.x[1]": 21,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert "run.limit" not in lines and "no" not in lines


def test_a_fault_gets_the_line_of_its_key_or_of_the_table_around_it() -> None:
    faults = [
        "p.toml: run.judges[1]: no judge",
        "p.toml: run.limt: missing",
        "p.toml: data.safety models",
        "p.toml: titles: unknown",
        "p.toml: no [[category]] tables",
        "another text",
    ]
    assert add_lines(TEXT, "p.toml", faults) == [
        "p.toml:9: run.judges[1]: no judge",
        "p.toml:7: run.limt: missing",
        "p.toml:13: data.safety models",
        "p.toml: titles: unknown",
        "p.toml: no [[category]] tables",
        "another text",
    ]


def test_a_text_that_is_no_toml_names_its_line() -> None:
    with pytest.raises(PlanError, match=r"^p\.toml:2: Expected ']'"):
        parse_toml("a = 1\n[run\nb = 2", "p.toml")
    with pytest.raises(PlanError, match="nested too deeply"):
        parse_toml("a = " + "[" * 100_000, "p.toml")


@given(st.text(alphabet="ab.=[]{}\"'#\n\\, 1", max_size=60))
def test_no_text_makes_the_scanner_fail(text: str) -> None:
    lines = find_key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for key in table:
        if key.isalnum():
            assert any(path == key or path.startswith((f"{key}.", f"{key}[")) for path in lines)
