"""Languages told apart by script and common words; in doubt English; a long text costs no more than a page."""

from __future__ import annotations

import time

import pytest

from truing.core.language_id import count_latin_letters, detect_language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Please tell me how to bake bread at home.", "en"),
        ("ok", "en"),
        ("", "en"),
        ("¿Puedes decirme cómo se hace el pan en casa y por qué?", "es"),
        ("Kannst du mir sagen, wie man ein Brot backt und was ich dazu brauche?", "de"),
        ("Peux-tu me dire comment on fait du pain et pourquoi il est bon?", "fr"),
        ("Скажи мне, как испечь хлеб", "und"),
        ("パンの作り方を教えて", "und"),
    ],
)
def test_language(text: str, code: str) -> None:
    assert detect_language(text) == code


def test_latin_letters_with_marks_count_and_others_do_not() -> None:
    assert (
        count_latin_letters("añoạ") == 4
        and count_latin_letters("паж") == 0
        and count_latin_letters("αβ") == 0
    )


@pytest.mark.parametrize(
    "text", ["die der das und", "Paris 1998", "42 + 1 = 43", "!!!", "\ud800 \udfff"]
)
def test_too_little_to_tell_is_english(text: str) -> None:
    assert detect_language(text) == "en"


def test_of_a_long_text_the_head_and_the_tail_are_read() -> None:
    german = "was ist das und wie kann ich es für mich machen "
    started = time.perf_counter()
    assert detect_language(german * 100 + "x " * 1_000_000 + german * 100) == "de"
    assert time.perf_counter() - started < 1.0
