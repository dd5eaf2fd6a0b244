"""Control characters are written out; all other text stays."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from truing.core.text import (
    MAX_SENTENCE_CHARACTERS,
    ends_sentence,
    escape_controls,
    replace_surrogates,
)


@given(st.lists(st.text()))
def test_no_control_remains_and_pieces_of_a_stream_give_the_same(pieces: list[str]) -> None:
    escaped = escape_controls("".join(pieces))
    assert escaped == "".join(map(escape_controls, pieces))
    assert all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in escaped)
    escaped.encode()


def test_text_of_all_scripts_stays() -> None:
    text = "caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d \U0001f469\u200d\U0001f680\n\t"
    assert escape_controls(text) == text
    assert escape_controls("\x1b[2J\x9d\ud800\u2028") == "\\x1b[2J\\x9d\\ud800\\u2028"


def test_sentence_ends() -> None:
    for text in ("It rains. ", 'He said "no." ', "a line\n", "下雨了。", "क्या। ", "Why?! "):
        assert ends_sentence(text), text
    for text in ("", "It rains", "3.14", "e.g", "x" * MAX_SENTENCE_CHARACTERS):
        assert not ends_sentence(text), text
    assert ends_sentence("x" * (MAX_SENTENCE_CHARACTERS + 1))


def test_lone_surrogates_are_replaced_and_all_other_text_stays() -> None:
    assert replace_surrogates("a\udc80b שלום 😀") == "a?b שלום 😀"
