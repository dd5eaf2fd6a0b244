"""Undoes the tricks by which text evades a classifier.

`clean_text` leaves ordinary English as it is. It folds compatibility forms, drops invisible
characters, maps look-alike letters of other alphabets to Latin where they replace Latin ones, joins
words that are spelled with gaps, and maps digits inside words back to letters. After Grondahl et
al. 2018 (All You Need is "Love", arXiv:1808.09115) and Boucher et al. 2022 (Bad Characters,
arXiv:2106.09898).
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import cache

from truing.core.language_id import count_latin_letters
from truing.core.linear_regex import LinearRegex

MAX_CHARACTERS = 20_000  # of a longer text training reads only the head and the tail
MAX_MARKS_PER_CHARACTER = 0.3  # ordinary text has fewer combining marks
# unicodedata.combining of a mark above a letter, by far the most frequent kind
_COMBINING_CLASS_ABOVE = 230

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff]"
)
_TO_LATIN = str.maketrans(
    "авекмнорстухіјѕԁԛԝһҽүАВЕКМНОРСТУХІЈЅԌԜҮ"
    "аеорсухαβεικνορτυχηΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
    "ʟɡıɑɩʀɴᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡʏᴢ",
    "abekmhopctyxijsdqwheyABEKMHOPCTYXIJSGWY"
    "aeopcyxabeiknoptuxnABEZHIKMNOPTYX"
    "lgiaiRNABCDEFGHIJKMOPSTUVWYZ",
)
_WORD = re.compile(r"[^\W\d_]+")
# Single letters with the same gap between them, four or more: s.t.e.a.l
_SPELLED_WORD = re.compile(
    r"(?<![^\W_])(?:[^\W\d_](?P<gap>[ .\-_*·|~]{1,2})(?:[^\W\d_](?P=gap)){2,}[^\W\d_])(?![^\W_])"
)
_GAP = re.compile(r"[^\w]|_")
_LEET_WORD = re.compile(
    # Possessive: otherwise a long run of these before another word character costs its square.
    r"(?<![\w$@!])(?=[a-zA-Z]*+[$@!0134578])[a-zA-Z$@!0134578]++(?![\w$@!])"
)
_LEET_CHARACTERS = "!$@0134578"
_LEET_TO_LETTERS = str.maketrans("0134578$@!", "oieastbsai")
_REPEATED_LETTER = re.compile(r"([^\W\d_])\1{3,}")
_SPACES = re.compile(r"[^\S\n]+")
# What an ASCII text needs for one of the substitutions to change it. One linear search spares most
# texts the four, which take ten times as long.
_SIGNS_OF_DISGUISE = (
    r"[a-zA-Z](?:[ .\-_*|~]{1,2}[a-zA-Z]){3}(?:[^a-zA-Z0-9]|$)",  # spelled with gaps
    r"[a-zA-Z][$@!0134578]|[$@!0134578][a-zA-Z]",
    "|".join(letter * 4 for letter in string.ascii_letters),
    r"[\t\v\f\r\x1c-\x1f]|  ",
)


@cache
def _disguise_search() -> LinearRegex:
    return LinearRegex("|".join(f"(?:{sign})" for sign in _SIGNS_OF_DISGUISE))


def clip_middle(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Returns a text of at most `max_characters`: three quarters head, one quarter tail."""
    if len(text) <= max_characters:
        return text
    head = max_characters * 3 // 4
    return f"{text[:head]} {text[-(max_characters - head) :]}"


def clean_text(text: str) -> str:
    """Returns the text as a human reads it."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
        text = _drop_stacked_marks(text)
        text = _fold_homoglyphs(text)
    elif not _disguise_search().matches(text):
        return text.strip()
    text = _SPELLED_WORD.sub(lambda match: _GAP.sub("", match.group()), text)
    text = _LEET_WORD.sub(_fold_leet, text)
    text = _REPEATED_LETTER.sub(r"\1\1", text)
    return _SPACES.sub(" ", text).strip()


def _drop_stacked_marks(text: str) -> str:
    """Drops all combining marks of a text that has stacks of them ("zalgo")."""
    decomposed = unicodedata.normalize("NFD", text)
    limit = _COMBINING_CLASS_ABOVE * MAX_MARKS_PER_CHARACTER * max(1, len(text))
    if sum(map(unicodedata.combining, decomposed)) <= limit:
        return text
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _fold_homoglyphs(text: str) -> str:
    """Maps look-alikes to Latin: in words of mixed alphabets, and everywhere amid Latin text."""
    if text.isascii():
        return text
    letters = "".join(_WORD.findall(text))
    is_mostly_latin = count_latin_letters(letters) >= 0.5 * len(letters)

    def fold_word(match: re.Match[str]) -> str:
        word = match.group()
        latin = count_latin_letters(word)
        if latin == len(word):
            return word
        folded = word.translate(_TO_LATIN)
        is_mixed = latin > 0
        return folded if is_mixed or (is_mostly_latin and folded.isascii()) else word

    return _WORD.sub(fold_word, text)


def _fold_leet(match: re.Match[str]) -> str:
    """Maps substitutes to letters, if they are inside a word.

    Ordinary tokens (B2B, covid19, 3rd, $100, wow!) keep their digits.
    """
    word = match.group()
    letters = sum(c.isalpha() for c in word)
    has_few_letters = letters < 2 or letters < len(word) * 0.4
    is_plain_inside = word.strip(_LEET_CHARACTERS).isalpha()
    if has_few_letters or is_plain_inside:
        return word
    return word.translate(_LEET_TO_LETTERS)
