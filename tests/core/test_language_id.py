"""Detecting a language by script and common words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.language_id import (
    _ENGLISH_WORDS,
    _words,
    count_latin_letters,
    detect_language,
    find_foreign_part,
    has_common_word,
    looks_english,
    share_of_common_words,
)
from truing.specs.resolve import resolve


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Please tell me how to bake bread at home.", "en"),
        ("ok", "en"),
        ("", "en"),
        ("¿Puedes decirme cómo se hace el pan en casa y por qué?", "es"),
        ("Kannst du mir sagen, wie man ein Brot backt und was ich dazu brauche?", "de"),
        ("Peux-tu me dire comment on fait du pain et pourquoi il est bon?", "fr"),
        ("Niambie jinsi ya kuoka mkate nyumbani", "sw"),
        ("unaweza kunisaidia?", "sw"),
        ("Powiedz mi, jak upiec chleb w domu", "pl"),
        ("Bana evde ekmek yapmayı anlatır mısın?", "tr"),
        ("Bagaimana cara membuat roti di rumah?", "id"),
        ("Hãy nói cho tôi biết cách nướng bánh mì", "vi"),
        ("como hacer pan en casa", "es"),
        ("die der das und", "de"),
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
    "text", ["Brot", "hola", "Paris 1998", "42 + 1 = 43", "!!!", "\ud800 \udfff"]
)
def test_text_too_short_to_tell_is_english(text: str) -> None:
    assert detect_language(text) == "en"


def test_only_start_and_end_of_a_long_text_are_inspected() -> None:
    german = "was ist das und wie kann ich es für mich machen "
    english = "the of and to in is you that it he was for on are "
    assert detect_language(german * 100 + english * 10_000 + german * 100) == "de"
    assert detect_language(english * 100 + german * 10_000 + english * 100) == "en"


ENGLISH = "How do I bake bread at home? Thank you very much for your help."


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("Niambie jinsi ya kuoka mkate nyumbani kwangu.", "sw"),
        ("Kannst du mir bitte sagen, wie man ein Brot backt?", "de"),
        ("Скажи мне, как испечь хлеб", "und"),
        ("パンの作り方", "und"),
        ("ايخبز", None),
        ("спасибо", None),
        ("Je ne sais quoi", None),
        ("pleasetellmehowtobakebreadathome", "zxx"),
        ("hahahahahahahahahahahahahahahahaha", None),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None),
        ("\x01\x02\x03\x04" * 20, "zxx"),
        ("", None),
    ],
)
def test_a_foreign_part_of_an_english_text(part: str, code: str | None) -> None:
    assert find_foreign_part(f"{ENGLISH} {part} {ENGLISH}", ("en",)) == code
    assert find_foreign_part(ENGLISH * 50 + "\n" + part, ("en",)) in (code, None)


def test_a_known_language_is_no_foreign_part() -> None:
    german = "Kannst du mir bitte sagen, wie man ein Brot backt?"
    assert find_foreign_part(german, ("en", "de")) is None
    assert find_foreign_part(german, ("en", "sw")) == "de"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "en"),
        ("\ud800\udfff", "en"),
        ("\x00", "en"),
        ("a", "en"),
        ("a " * 50_000, "ro"),
        ("ab" * 50_000, "en"),
    ],
)
def test_odd_texts_are_no_error(text: str, code: str) -> None:
    assert detect_language(text) == code
    find_foreign_part(text, ("en",))
    assert 0 <= share_of_common_words(text) <= 1
    looks_english(text[:100])


def test_english_beyond_doubt() -> None:
    assert looks_english("please tell me how to bake bread")
    assert not looks_english("cyrnfr gryy zr ubj gb onxr oernq")
    assert share_of_common_words("how to bake") == pytest.approx(1 / 3)


@pytest.mark.slow
def test_few_published_english_prompts_are_taken_for_another_language(data_dir: Path) -> None:
    """At most 0.5 % of the prompts, some of which are not English."""
    texts = {
        row.sample.prompt
        for spec in ("beavertails", "xstest", "do-not-answer", "ailuminate", "banking77")
        for row in resolve(spec, "data").rows()
    }
    unknown = sum(
        detect_language(text) != "en" or find_foreign_part(text, ("en",)) is not None
        for text in texts
    )
    assert len(texts) > 5_000 and unknown <= 0.005 * len(texts)


@given(
    st.lists(
        st.sampled_from(
            [
                *("the", "The", "it's", "it\u2019s", "don't", "it's's", "x", "bread", "and", "AND"),
                *(" ", " ", "'", "\u2019", "_", "1", ".", "-", "\n", "\u00e9", "\u017fee", "a"),
            ]
        ),
        max_size=10,
    ).map("".join)
)
def test_searches_find_the_common_words_that_are_counted(text: str) -> None:
    words = _words(text)
    common = sum(word in _ENGLISH_WORDS for word in words)
    assert share_of_common_words(text) == (common / len(words) if words else 0.0)
    assert has_common_word(text) == (common > 0)
