"""Logical lines, and splitting outside of quotes and brackets."""

from __future__ import annotations

import pytest

from truing.rails.colang.lexer import (
    LogicalLine,
    collapse_spaces,
    leading_keyword,
    read_logical_lines,
    split_arguments,
    split_outside_quotes,
    strip_keyword,
)


def _texts(content: str) -> list[str]:
    return [line.text for line in read_logical_lines(content)]


def test_a_line_has_its_number_its_indent_and_no_comment() -> None:
    assert read_logical_lines("define flow\n\n  user hi  # greets\n") == [
        LogicalLine("define flow", 1, 0),
        LogicalLine("user hi", 3, 2),
    ]


def test_a_comment_is_kept_with_the_next_line_only() -> None:
    lines = read_logical_lines("# be kind\n# and short\nbot greet\nbot ask\n")
    assert [(line.text, line.comment) for line in lines] == [
        ("bot greet", "be kind\nand short"),
        ("bot ask", None),
    ]


@pytest.mark.parametrize(
    ("docstring", "comment"),
    [
        ('"""Greets."""', "Greets."),
        ('"""Greets\n  everyone.\n"""', "Greets\neveryone.\n"),
    ],
)
def test_a_docstring_counts_as_a_comment(docstring: str, comment: str) -> None:
    (line,) = read_logical_lines(f"{docstring}\nuser hi\n")
    assert line == LogicalLine("user hi", docstring.count("\n") + 2, 0, comment)


def test_a_backslash_and_a_trailing_or_continue_a_line() -> None:
    content = "user a or\n  user b\nexecute f(a=1, \\\n  b=2)\nbot c\n"
    assert _texts(content) == ["user a or user b", "execute f(a=1, b=2)", "bot c"]


def test_a_continued_line_has_the_number_of_its_last_line_and_the_indent_of_its_first() -> None:
    (line,) = read_logical_lines("  user a or\n      user b\n")
    assert (line.number, line.indent) == (2, 2)


def test_a_string_over_several_lines_is_one_line() -> None:
    (line, following) = read_logical_lines('  "one\n   two"\n  "three"  # closed\n')
    assert line.text == '"one\ntwo"'
    assert following.text == '"three"'


def test_a_hash_in_quotes_is_no_comment() -> None:
    assert _texts('bot say "#1"  # first\n') == ['bot say "#1"']


def test_byte_order_mark_and_windows_line_ends_are_dropped() -> None:
    assert _texts("\ufeffuser a\r\nbot b\r\n") == ["user a", "bot b"]


@pytest.mark.parametrize(
    ("text", "separator", "parts"),
    [
        ("", " or ", [""]),
        ("  ", " or ", []),
        (" a ", " or ", ["a"]),
        ("user a or user b", " or ", ["user a", "user b"]),
        ('say "a or b" or c', " or ", ['say "a or b"', "c"]),
        ("a = ", "=", ["a"]),
        ('x # "y"', "#", ["x", '"y"']),
    ],
)
def test_split_outside_quotes(text: str, separator: str, parts: list[str]) -> None:
    assert split_outside_quotes(text, separator) == parts


def test_split_arguments_respects_brackets_and_quotes() -> None:
    assert split_arguments('a=1, b=[1, 2], c="x, y", d={"k": (1, 2)}') == [
        "a=1",
        "b=[1, 2]",
        'c="x, y"',
        'd={"k": (1, 2)}',
    ]


@pytest.mark.parametrize("text", ["a)", "[1, 2)", '"a"]', "}"])
def test_unbalanced_arguments_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unexpected"):
        split_arguments(text)


def test_spaces_collapse_outside_quotes() -> None:
    assert collapse_spaces("user   ask \t price") == "user ask price"
    assert collapse_spaces('bot  say   "two  spaces"') == 'bot say "two  spaces"'


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("user ask price", "user"),
        ("else", "else"),
        ("else if $a", "else if"),
        ("else when user a", "else when"),
        ("go to start", "go to"),
        ("goto start", "goto"),
    ],
)
def test_leading_keyword(text: str, keyword: str) -> None:
    assert leading_keyword(text) == keyword
    assert f"{keyword} {strip_keyword(keyword, text)}".strip() == text
