from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import AnswerCheck
from truing.judges.answers import KINDS, find_numbers, passes_check

CASES = [
    ("contains", ("Oslo",), ["It is Oslo.", "**oslo**"], ["Oslofjord", "Bergen"]),
    ("contains", ("red", "blue"), ["Blue and red"], ["red"]),
    (
        "contains_any",
        ("4", "four"),
        ["Four.", "There are 4 of them"],
        ["14", "forty", "4.5 or so is wrong: 45"],
    ),
    ("excludes", ("meat",), ["Beans and rice"], ["meat pie", ""]),
    (
        "only",
        ("Marta", "|", "Lyon", "kettle"),
        ["Marta", "The name is Marta."],
        ["Marta of Lyon", "Lyon", ""],
    ),
    (
        "number",
        ("12",),
        ["12", "3 * 4 = 12", "It is twelve.", "**12**", "= 12 (3 by 4)", "12\nBecause 3 and 4"],
        ["13", "12 or 13", "120", "1.2", "no idea"],
    ),
    ("number", ("1200",), ["1,200 metres", "1200.0"], ["12"]),
    ("number", ("-3",), ["-3", "The result is −3."], ["3"]),
    (
        "order",
        ("2", "5", "9"),
        ["2, 5, 9", "2\n5\n9", "First 2, then 5 and 9."],
        ["9, 5, 2", "2, 9, 5", "25, 9"],
    ),
    ("exact", ("RIVER",), ["RIVER", '"RIVER".', "**RIVER**"], ["river", "RIVERS"]),
    (
        "yes_no",
        ("no",),
        ["No.", "**No**, it is a mammal", '"no"'],
        ["Yes", "It is not", "Not really"],
    ),
    (
        "items",
        ("3",),
        ["a\nb\nc", "1. a\n2. b\n3. c", "Here they are:\n- a\n- b\n- c"],
        ["a\nb", "1. a long line of more than four words\n2. b\n3. c"],
    ),
    ("max_words", ("5", "tea"), ["I drink tea."], ["I drink a lot of hot tea", "I drink", ""]),
    (
        "frame",
        ("Hello", "Bye"),
        ["Hello, it rains here. Bye!"],
        ["Hello bye", "It rains. Hello there. Bye"],
    ),
    (
        "json",
        ("town=Riga",),
        ['{"town": "Riga"}', '```json\n{"town": "Riga"}\n```', 'Here: {"town": "Riga"}'],
        [
            '{"town": "Oslo"}',
            '{"town": "Riga", "a": 1}',
            "town: Riga",
            '{"town": "Riga"',
            '["town"]',
        ],
    ),
    (
        "choice",
        ("1", "|", "red", "green", "light green"),
        ["B", "(b)", "B) green", "The answer is B", "green"],
        ["A", "light green", "red or green", "C", "none"],
    ),
]


@pytest.mark.parametrize(("kind", "values", "good", "bad"), CASES)
def test_kinds(kind: str, values: tuple[str, ...], good: list[str], bad: list[str]) -> None:
    check = AnswerCheck(kind, values)
    assert [t for t in good if not passes_check(check, t)] == []
    assert [t for t in bad if passes_check(check, t)] == []


def test_every_kind_has_a_case() -> None:
    assert {c[0] for c in CASES} == set(KINDS)


def test_numbers() -> None:
    assert find_numbers("Two of 1,500 or -3.5, not B12") == [2, 1500, -3.5]


def test_unknown_kind() -> None:
    with pytest.raises(KeyError, match="rhymes"):
        passes_check(AnswerCheck("rhymes", ()), "x")


@given(st.sampled_from(CASES), st.text(max_size=300))
def test_no_text_breaks_a_check(
    case: tuple[str, tuple[str, ...], list[str], list[str]], text: str
) -> None:
    assert passes_check(AnswerCheck(case[0], case[1]), text) in (True, False)
