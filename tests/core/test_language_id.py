"""Detecting a language by script and common words."""

from __future__ import annotations

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
def test_detects_language(text: str, code: str) -> None:
    assert detect_language(text) == code


@pytest.mark.parametrize(("letters", "count"), [("añoạ", 4), ("паж", 0), ("αβ", 0), ("", 0)])
def test_latin_letters_with_diacritics_count(letters: str, count: int) -> None:
    assert count_latin_letters(letters) == count


@pytest.mark.parametrize(
    "text", ["die der das und", "Paris 1998", "42 + 1 = 43", "!!!", "\ud800 \udfff"]
)
def test_text_too_short_to_tell_is_english(text: str) -> None:
    assert detect_language(text) == "en"


def test_only_start_and_end_of_a_long_text_are_inspected() -> None:
    german = "was ist das und wie kann ich es für mich machen "
    english = "the of and to in is you that it he was for on are "
    assert detect_language(german * 100 + english * 10_000 + german * 100) == "de"
    assert detect_language(english * 100 + german * 10_000 + english * 100) == "en"
