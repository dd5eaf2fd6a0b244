"""Undoes the tricks by which text slips past a classifier.

`clean` leaves ordinary English as it is: it folds compatibility forms, drops invisible characters, maps look-alike
letters of other alphabets to Latin where they stand in for it, and closes up words spelled with gaps. After Grondahl
et al. 2018 (All You Need is "Love", arXiv:1808.09115) and Boucher et al. 2022 (Bad Characters, arXiv:2106.09898).
"""

from __future__ import annotations

import re
import unicodedata

from truing.core.language_id import count_latin_letters

MAX_CHARACTERS = 20_000  # characters that are looked at: the head and the tail of a longer text

_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_LOOKALIKE = str.maketrans(
    "авекмнорстухіјѕԁԛԝһҽүАВЕКМНОРСТУХІЈЅԌԜҮаеорсухαβεικνορτυχηΑΒΕΖΗΙΚΜΝΟΡΤΥΧʟɡıɑɩʀɴᴀʙᴄᴅᴇꜰɢʜɪᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡʏᴢ",
    "abekmhopctyxijsdqwheyABEKMHOPCTYXIJSGWYaeopcyxabeiknoptuxnABEZHIKMNOPTYXlgiaiRNABCDEFGHIJKMOPSTUVWYZ",
)
_WORD = re.compile(r"[^\W\d_]+")
_GAPS = re.compile(
    r"(?<![^\W_])(?:[^\W\d_](?P<gap>[ .\-_*·|~]{1,2})(?:[^\W\d_](?P=gap)){2,}[^\W\d_])(?![^\W_])"
)
_LEET = re.compile(r"(?<![\w$@!])[a-zA-Z$@!0134578]*[$@!0134578][a-zA-Z$@!0134578]*(?![\w$@!])")
_DIGITS = str.maketrans("0134578$@!", "oieastbsai")
_LONG = re.compile(r"([^\W\d_])\1{3,}")
_SPACE = re.compile(r"[^\S\n]+")


def clip_middle(text: str, most: int = MAX_CHARACTERS) -> str:
    """The text, or the head (three quarters) and the tail of one that is longer than `most` characters."""
    if len(text) <= most:
        return text
    head = most * 3 // 4
    return f"{text[:head]} {text[-(most - head) :]}"


def _homoglyphs(text: str) -> str:
    """Look-alikes become Latin: in words that mix alphabets, and in foreign words amid mostly Latin text."""
    if text.isascii():
        return text
    letters = "".join(_WORD.findall(text))
    mostly = count_latin_letters(letters) >= 0.5 * len(letters)

    def fold(match: re.Match[str]) -> str:
        word = match.group()
        n = count_latin_letters(word)
        if n == len(word):
            return word
        made = word.translate(_LOOKALIKE)
        return made if n > 0 or (mostly and made.isascii()) else word

    return _WORD.sub(fold, text)


def _leet(match: re.Match[str]) -> str:
    word = match.group()
    letters = sum(c.isalpha() for c in word)
    # ordinary tokens (B2B, covid19, 3rd, $100, wow!) keep their digits: only inner substitutes in real words count
    inner = word.strip("!$@0134578")
    if letters < 2 or letters < len(word) * 0.4 or inner.isalpha():
        return word
    return word.translate(_DIGITS)


def clean_text(text: str) -> str:
    """The text as a reader sees it."""
    text = clip_middle(text)
    if not text.isascii():
        text = _HIDDEN.sub("", unicodedata.normalize("NFKC", text))
        text = "".join(
            c for c in text if not unicodedata.combining(c) or c < "\u0370" or c > "\u036f"
        )
        stripped = unicodedata.normalize("NFD", text)
        if sum(map(unicodedata.combining, stripped)) > 230 * 0.3 * max(
            1, len(text)
        ):  # stacked marks ("zalgo")
            text = "".join(c for c in stripped if not unicodedata.combining(c))
        text = _homoglyphs(text)
    text = _GAPS.sub(lambda m: re.sub(r"[^\w]|_", "", m.group()), text)
    text = _LEET.sub(_leet, text)
    text = _LONG.sub(r"\1\1", text)
    return _SPACE.sub(" ", text).strip()
