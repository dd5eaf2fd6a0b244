"""Patterns on RE2 mean what they mean in Python, and take linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from truing.core.linear_regex import LinearRegex, NotLinear, SearchMode

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "é",
        ".",
        "\\w",
        "\\W",
        "\\d",
        "\\s",
        "\\S",
        "[ab]",
        "[^a]",
        "[\\w-]",
        "[\\s\\S]",
        "\\b",
        "^",
        "$",
        "\\A",
        "\\Z",
        "\\.",
        "I",
        "ß",
        "[a-z]",
        "[^\\s]",
        "\\n",
        "x",
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join).map("({})".format),
        st.tuples(
            inner.map("(?:{})".format), st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?", "+?"])
        ).map("".join),
        inner.map("(?i:{})".format),
        inner.map("(?m:{})".format),
        inner.map("(?s:{})".format),
    ),
    max_leaves=6,
)
TEXTS = st.text(alphabet="abxI é\n.-ßıİſ1٣_", max_size=12)


@settings(max_examples=400, deadline=None)
@given(PATTERNS, TEXTS, st.sampled_from(["search", "fullmatch"]), st.booleans())
@example("(a$|b)\n", "a\n", "search", False)
@example("a$", "a\n", "fullmatch", False)
@example("a|b$", "b\n", "search", False)
@example("i", "İ", "search", True)
def test_the_same_texts_match_as_in_python(
    pattern: str, text: str, mode: SearchMode, ignore_case: bool
) -> None:
    expected = getattr(re.compile(pattern, re.IGNORECASE if ignore_case else 0), mode)(text)
    try:
        linear = LinearRegex(pattern, mode, ignore_case=ignore_case)
    except NotLinear:
        return
    if linear.can_read(text):
        assert linear.matches(text) is (expected is not None)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)b", "assert is not possible in linear time"),
        ("(?!a)b", "assert_not is not possible in linear time"),
        ("(?<=a)b", "assert is not possible in linear time"),
        ("(?<!a)b", "assert_not is not possible in linear time"),
        (r"(a)\1", "groupref is not possible in linear time"),
        ("(?P<x>a)(?P=x)", "groupref is not possible in linear time"),
        ("(?>a)", "atomic_group is not possible in linear time"),
        ("a++", "possessive_repeat is not possible in linear time"),
        ("a{2000}", "more than 1000 repetitions"),
        ("a$b", r"\$ inside a pattern"),
        ("(a)(?(1)b|c)", "groupref_exists is not possible in linear time"),
        ("(?a:x)", "the flags a and L are not translated"),
        ("\ud800", "lone surrogates"),
        ("a" * 20_000, "the pattern is longer than 10000 characters"),
    ],
)
def test_what_is_not_linear_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(NotLinear, match=f"^{reason}$"):
        LinearRegex(pattern)


def test_a_malformed_pattern_is_an_error_of_re() -> None:
    with pytest.raises(re.error, match="unterminated subpattern at position 0"):
        LinearRegex("(a")


def test_texts_that_the_engines_read_differently_are_named() -> None:
    assert LinearRegex(r"\bа").can_read("ascii") and not LinearRegex(r"\ba").can_read("é")
    assert not LinearRegex("a").can_read("\ud800")
    assert LinearRegex("a").can_read("é")
    assert not LinearRegex("i", ignore_case=True).can_read("ı")


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+$", "(a*)*b", "(.*a){12}b", "^(([a-z])+.)+[A-Z]$"]
)
def test_patterns_that_are_exponential_in_python_are_linear(pattern: str) -> None:
    start = time.process_time()
    LinearRegex(pattern).matches("a" * 100_000 + "!")
    assert time.process_time() - start < 5
