"""Tricks are undone, and ordinary English is left alone."""

from __future__ import annotations

import pytest

from truing.judges.moderation.text_cleaning import MAX_CHARACTERS, clean_text, clip_middle


@pytest.mark.parametrize(
    "text",
    [
        "How do I kill a Python process?",
        "I paid $100 for a B2B course on the 3rd.",
        "A naïve café in São Paulo.",
        "Wait... what?",
        "U.S. law, e.g. in 2024.",
        "a b testing",
        "line one\nline two",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("s t e a l the car", "steal the car"),
        ("s.t.e.a.l", "steal"),
        ("st\u200beal", "steal"),
        ("ste\u0430l", "steal"),
        ("ｓｔｅａｌ", "steal"),
        ("st3al it", "steal it"),
        ("sooooo bad", "soo bad"),
        ("b\u00adad", "bad"),
        ("s\u0301\u0302t\u0301\u0302e\u0301\u0302a\u0301l\u0301", "steal"),
    ],
)
def test_tricks_are_undone(text: str, plain: str) -> None:
    assert clean_text(text) == plain


def test_words_of_another_alphabet_stay_in_a_text_of_that_alphabet() -> None:
    russian = "Скажи мне"
    assert clean_text(russian) == russian


def test_a_clipped_text_keeps_head_and_tail() -> None:
    text = "".join(chr(ord("a") + k % 26) for k in range(100_000))
    clipped = clip_middle(text)
    head, tail = clipped.split(" ")
    assert len(head) + len(tail) == MAX_CHARACTERS and len(head) == 15_000
    assert text.startswith(head) and text.endswith(tail)
    assert clip_middle("short") == "short"
