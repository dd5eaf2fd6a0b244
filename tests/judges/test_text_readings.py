"""Disguised texts are read as what they may stand for; ordinary ones have no other reading."""

from __future__ import annotations

import base64
import codecs
import time
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from truing.judges import text_readings
from truing.judges.confusables import CONFUSABLES, UPSIDE_DOWN
from truing.judges.moderation import text_cleaning
from truing.judges.moderation.text_cleaning import clean_text
from truing.judges.text_readings import alternative_readings

PLAIN = "please tell me how to bake bread at home"
_TURNED = {letter: chr(code) for code, letter in UPSIDE_DOWN.items()}
_SQUARED = {chr(ord("a") + k): chr(0x1F170 + k) for k in range(26)}
_MORSE = {"a": ".-", "b": "-...", "d": "-..", "e": ".", "h": "....", "k": "-.-", "l": ".-.."}
_MORSE |= {"m": "--", "o": "---", "p": ".--.", "r": ".-.", "s": "...", "t": "-", "w": ".--"}


def translate(table: dict[str, str], text: str = PLAIN) -> str:
    return "".join(table.get(c, c) for c in text)


TRICKS = {
    "base64": base64.b64encode(PLAIN.encode()).decode(),
    "base64 in a sentence": "Answer this: " + base64.urlsafe_b64encode(PLAIN.encode()).decode(),
    "hex": PLAIN.encode().hex(),
    "hex with spaces": PLAIN.encode().hex(" "),
    "escapes": "".join(f"\\u{ord(c):04x}" for c in PLAIN),
    "binary": " ".join(f"{byte:08b}" for byte in PLAIN.encode()),
    "decimal": " ".join(str(byte) for byte in PLAIN.encode()),
    "percent": "".join(f"%{byte:02x}" for byte in PLAIN.encode()),
    "entities": "".join(f"&#{ord(c)};" for c in PLAIN),
    "morse": " / ".join(" ".join(_MORSE[c] for c in word) for word in PLAIN.split()),
    "rot13": codecs.encode(PLAIN, "rot13"),
    "rot13 after a sentence": "Please decode it first: " + codecs.encode(PLAIN, "rot13"),
    "shift by three": "".join(chr((ord(c) - 94) % 26 + 97) if c != " " else c for c in PLAIN),
    "backwards": PLAIN[::-1],
    "words backwards": " ".join(word[::-1] for word in PLAIN.split()),
    "upside down": translate(_TURNED)[::-1],
    "emoji letters": translate(_SQUARED),
    "tag characters": "".join(chr(0xE0000 + ord(c)) for c in PLAIN),
    "struck through": "".join(c + "\u0336" for c in PLAIN),
    "dots below": "".join(c + "\u0323" for c in PLAIN),
    "accents": translate({"e": "é", "a": "ä", "o": "ô", "l": "ł", "m": "ḿ", "t": "ţ"}),
    "look-alikes": translate({"e": "\uab32", "o": "\u0585", "a": "\u0430", "h": "\u0570"}),
    "digits": translate({"e": "3", "a": "4", "o": "0", "t": "7"}),
    "letters apart": " ".join(PLAIN.replace(" ", "")),
    "hyphens": " ".join(w[:2] + "-" + w[2:] if len(w) > 2 else w for w in PLAIN.split()),
    "repeated letters": "".join(c * 3 if c in "aeiou" else c for c in PLAIN),
    "odd case": "".join(c.upper() if k % 2 else c for k, c in enumerate(PLAIN)),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_disguised_text_has_the_plain_one_among_its_readings(trick: str) -> None:
    readings = [reading.lower() for reading in alternative_readings(TRICKS[trick])]
    plain = PLAIN.replace(" ", "")
    assert any(
        plain in "".join(reading.split()) or set(PLAIN.split()) <= set(reading.split())
        for reading in readings
    ), readings


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "How do I kill a Python process?",
        "I paid $100 for a B2B course on the 3rd, about COVID-19 and GPT4.",
        "A naïve café in São Paulo has crème brûlée.",
        "Wait... what? U.S. law, e.g. in 2024, i.e. 12/31.",
        "See https://example.org/a_b-c/d?e=%20f, or write to me@example.org!",
        "This is a state-of-the-art follow-up to the e-mail of my mother-in-law.",
        "The sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.",
        "Call 555 123 4567 or 020 7946 0958 between 10 am and 5 pm.",
        "Скажи мне, как испечь хлеб",
        "Hãy nói cho tôi biết cách nướng bánh mì",
        "x = [1, 2, 3]; print(x)",
        "",
    ],
)
def test_ordinary_text_has_no_other_reading(text: str) -> None:
    assert alternative_readings(text) == ()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_few_readings_and_no_error(text: str) -> None:
    readings = alternative_readings(text)
    assert len(readings) <= 3 and text not in readings


class _FindsAll:
    """A search that spares no text the patterns."""

    def matches(self, text: str) -> bool:
        return True


SIGNS = (*" \n\t\x1d.-_!()@$+\"':?é07", "  ", "%41", "&#65;")
WORDS = "a b the The sooo AAA covid-19 3rd b4ke f(x) wow! (b) b.a.k.e bA re-do and/or it's don't"
CODES = (
    *("\\x41", "\\u0041", "01100010 ", "62 61 ", "098, 097, ", "-... .- ", "/ ", "b a k e "),
    *("YmFrZSB0aGUgYnJlYWQ=", "gurer vf ab", "bake the bread at home ", "daerb eht ekab"),
)
PIECES = st.one_of(
    st.sampled_from([*SIGNS, *WORDS.split(), *CODES]),
    st.text(alphabet=st.characters(max_codepoint=127), max_size=6),
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("a.b.c")
@example("x a_b_c")
@example("h3llo w0rld")
@example("(f(x) g(y))")
def test_the_search_for_signs_changes_no_reading(text: str) -> None:
    readings, clean = alternative_readings(text), clean_text(text)
    with (
        patch.object(text_readings, "_sign_search", _FindsAll),
        patch.object(text_cleaning, "_disguise_search", _FindsAll),
    ):
        assert alternative_readings(text) == readings
        assert clean_text(text) == clean


@pytest.mark.parametrize("trick", TRICKS)
def test_a_disguise_between_plain_sentences_has_a_sign(trick: str) -> None:
    text = f"This is what they wrote. {TRICKS[trick]}"
    readings = alternative_readings(text)
    with patch.object(text_readings, "_sign_search", _FindsAll):
        assert alternative_readings(text) == readings


@pytest.mark.parametrize("piece", ["a.", "1!", "=+/A", "- . ", "%41", "a-", "é", "\u0336", "&#65;"])
def test_the_cost_is_linear(piece: str) -> None:
    def measure(length: int) -> float:
        text = (piece * length)[:length]
        start = time.process_time()
        alternative_readings(text)
        return time.process_time() - start

    assert measure(80_000) < 40 * (measure(8_000) + 0.01)


def test_look_alikes_stand_for_one_ascii_letter() -> None:
    assert all(code > 127 for code in CONFUSABLES)
    assert all(len(v) == 1 and v.isascii() and v.isalpha() for v in CONFUSABLES.values())
