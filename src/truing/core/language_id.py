"""Tells which language a text is written in: 97 languages by py3langid, other scripts by letters.

For judges and rails that understand few languages: they must know whether they can judge a text.
py3langid (Lui & Baldwin 2012, langid.py; BSD) is a naive Bayes classifier over byte n-grams. Its
probabilities of short English texts are unsure, so a text is another language only if English is
improbable and few of its words are common English ones. When in doubt, the answer is English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING

from truing.core.linear_regex import LinearRegex

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Only this many characters are inspected: three quarters from the start, the rest from the end.
_MAX_CHARS = 4000

_MIN_LETTERS = 4  # fewer letters say nothing about the script
_MIN_WORDS = 2  # fewer words say nothing about the language
_MIN_WORDS_OF_PART = 5
_MIN_WORDS_OF_ENGLISH = 3
_TOKENS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

# A whole text is not English if its probability and its share of common words are below these; the
# part of a text must be less probable still. Chosen on prompts of 13 sets and 34 languages.
_MAX_PROBABILITY = 0.1
_MAX_PROBABILITY_OF_WORDS = {2: 0.003, 3: 0.01, 4: 0.03}
_MAX_PROBABILITY_OF_PART = 0.001
_MIN_PROBABILITY_OF_ENGLISH = 0.8
_MAX_COMMON = 0.2
_MAX_COMMON_OF_PART = 0.15

_PARTS = re.compile(r"(?<=[.!?:;])\s+|\n+")
_NOT_LATIN = r"[^\W\d_A-Za-z\u00aa-\u024f\u1e00-\u1eff]"
# Letters of other alphabets with anything but Latin letters between them
_FOREIGN_RUN = re.compile(rf"{_NOT_LATIN}[^A-Za-z\u00aa-\u024f\u1e00-\u1eff]*")
# No English word is as long. Runs of one letter are laughter and cries.
_LONG_RUN = re.compile(r"(?<![^\W\d_])(?!(\w{1,4})\1{4})[^\W\d_]{28}")
_NO_TEXT = ("Cc", "Cf", "Cn", "Co", "Cs")
_MAX_BINARY = 0.2
_FIRST_IDEOGRAPH = "\u2e80"
_MAX_FOREIGN_RUN = 8  # letters; from here on characters stand for syllables and count twice

# Frequent words of English that are not as frequent in other languages with Latin letters.
_COMMON_WORDS = (
    "about all and are at be because but by can could did does don't down each first for from "
    "get go good had has have he here him his how i'm if into isn't it it's its just know like "
    "long look make many more my never not now of on or other out people really said see she "
    "should some than that the their them then there these they this time two up use very want "
    "way we were what when where which who why will with would you your please write give tell "
    "explain describe"
)
_ENGLISH_WORDS = frozenset(_COMMON_WORDS.split())


def count_latin_letters(letters: str) -> int:
    """Returns how many letters are Latin, with or without diacritics.

    Counts up to U+024F (Latin Extended-B) and U+1E00 to U+1EFF (Latin Extended Additional).
    """
    return sum(c < "\u0250" or "\u1e00" <= c < "\u1f00" for c in letters)


def detect_language(text: str) -> str:
    """Returns `en`, another language code, or `und` if most letters are not Latin.

    A text too short to tell counts as English.
    """
    sample = text
    if len(text) > _MAX_CHARS:
        sample = f"{text[: _MAX_CHARS * 3 // 4]} {text[-_MAX_CHARS // 4 :]}"
    words = _words(sample)
    letters = "".join(words)
    if len(letters) >= _MIN_LETTERS and count_latin_letters(letters) < 0.5 * len(letters):
        return "und"
    if len(words) < _MIN_WORDS or _share_of_common_words(words) >= _MAX_COMMON:
        return "en"
    ranking = _rank_languages(sample)
    # A few words of English may be improbable: names, orders, fields of a form.
    limit = _MAX_PROBABILITY_OF_WORDS.get(len(words), _MAX_PROBABILITY)
    return "en" if ranking["en"] >= limit else next(iter(ranking))


def looks_english(text: str) -> bool:
    """Returns whether a text has three words or more and reads as English beyond doubt."""
    if len(_words(text)) < _MIN_WORDS_OF_ENGLISH:
        return False
    return _rank_languages(text)["en"] >= _MIN_PROBABILITY_OF_ENGLISH


def has_common_word(text: str) -> bool:
    """Returns whether a word of the text is among the most common of English."""
    # Found in nearly every English text, in a fifth of the time that its words take.
    if text.isascii() and _certain_word_search().matches(text):
        return True
    return share_of_common_words(text) > 0


def share_of_common_words(text: str) -> float:
    """Returns the share of a text's words that are among the most common of English."""
    if text.isascii() and not _possible_word_search().matches(text):
        return 0.0
    words = _words(text)
    return _share_of_common_words(words) if words else 0.0


@cache
def _certain_word_search() -> LinearRegex:
    """Finds common words that are words of a text beyond doubt: beside no apostrophe."""
    words = "|".join(filter(str.isalpha, _COMMON_WORDS.split()))
    return LinearRegex(rf"(?:^|[^a-z'])(?:{words})(?:[^a-z']|$)", ignore_case=True)


@cache
def _possible_word_search() -> LinearRegex:
    """Finds all common words, and some that are part of another word with an apostrophe."""
    words = "|".join(_COMMON_WORDS.split())
    return LinearRegex(rf"(?:^|[^a-z])(?:{words})(?:[^a-z]|$)", ignore_case=True)


def find_foreign_part(text: str, known: Collection[str]) -> str | None:
    """Returns the language of a sentence or line that is in none of the known languages.

    It is `und` for a phrase in another alphabet, and `zxx` (no language) for letters without spaces
    and for characters that stand for no text. None if there is no such part, as far as can be told:
    parts of few words are not recognised.
    """
    if _LONG_RUN.search(text) or _is_binary(text):
        return "zxx"
    for match in _FOREIGN_RUN.finditer(text):
        letters = [c for c in match.group() if c.isalpha()]
        if sum(1 + (c >= _FIRST_IDEOGRAPH) for c in letters) >= _MAX_FOREIGN_RUN:
            return "und"
    for part in _split_parts(text):
        words = _words(part)
        if len(words) < _MIN_WORDS_OF_PART:
            continue
        if "en" in known and _share_of_common_words(words) >= _MAX_COMMON_OF_PART:
            continue
        ranking = _rank_languages(part)
        if sum(ranking.get(code, 0.0) for code in known) < _MAX_PROBABILITY_OF_PART:
            return next(iter(ranking))
    return None


def _is_binary(text: str) -> bool:
    """Returns whether a fifth of the characters are control, private or unassigned ones."""
    odd = sum(
        c == "\ufffd" or (unicodedata.category(c) in _NO_TEXT and c not in "\n\r\t") for c in text
    )
    return odd > _MAX_BINARY * len(text)


def _split_parts(text: str) -> Iterator[str]:
    """Yields sentences and lines, in pieces of at most `_MAX_CHARS`."""
    for part in _PARTS.split(text):
        for start in range(0, len(part), _MAX_CHARS):
            yield part[start : start + _MAX_CHARS]


def _words(text: str) -> list[str]:
    return _TOKENS.findall(text.lower().replace("’", "'"))


def _share_of_common_words(words: list[str]) -> float:
    return sum(word in _ENGLISH_WORDS for word in words) / len(words)


def _rank_languages(text: str) -> dict[str, float]:
    """Returns probabilities by language code, the highest first."""
    # Lone surrogates, the trace of invalid UTF-8, cannot be encoded.
    text = text.encode("utf-8", "replace").decode()
    # In lower case: the model takes odd case for another language.
    ranking = _load_identifier().rank(text.lower())
    return {str(code): float(probability) for code, probability in ranking}


@cache
def _load_identifier() -> LanguageIdentifier:
    """Loads the model: 5 MB in the package, 100 MB in memory, at the first use."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
