"""Further readings of a text that may be disguised: unmasked, and decoded.

A judge reads these beside the text itself, and the worst reading counts. So a reading that is wrong
costs time and no harm is lost by it, while ordinary text has none: a reading that equals the text,
but for spaces, is left out. What the readings undo follows Grondahl et al. 2018
(arXiv:1808.09115), Boucher et al. 2022 (arXiv:2106.09898) and Wei et al. 2023 (arXiv:2307.02483).

The thresholds (`_MIN_...`) are set by hand, not fitted: so low that a sentence disguised by a trick
of `benchmarks/security/evasion.py` exceeds them, and so high that the ordinary texts of
`tests/judges/test_text_readings.py` (numbers, links, lists, titles) do not. Rates of
detection and of false alarms are in `benchmarks/security/evasion.md`.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import string
import unicodedata
from collections.abc import Callable
from functools import cache
from urllib.parse import unquote

from truing.core.language_id import has_common_word, looks_english, share_of_common_words
from truing.core.linear_regex import LinearRegex
from truing.judges.confusables import CONFUSABLES, UPSIDE_DOWN

_TAG_CHARACTERS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
# Emoji letters: negative squared, negative circled, regional indicators
_EMOJI_LETTERS = {
    first + offset: chr(ord("a") + offset)
    for first in (0x1F170, 0x1F150, 0x1F1E6)
    for offset in range(26)
}
_WORD = re.compile(r"\S+")
# 3rd, 10km, 5pm, 2024-12-01; mp3, covid-19; links and addresses
_ORDINARY_NUMBER = re.compile(
    r"\W*(?:\d[\d.,:/%-]*(?:st|nd|rd|th|[a-z]|[ap]m|[kmgt]b|[kmc]?[gm]|px|hz|kwh?|mph)?"
    r"|[a-z]{1,6}-?\d{1,5}s?|b2[bc]|h2o|co2)\W*|.*(?:://|www\.|\w@\w+\.).*",
    re.IGNORECASE,
)
_LEET = str.maketrans("0134567892@$!|€£+()", "oieasgtbgzasiieltcd")
_LEET_CHARACTERS = frozenset("0134567892@$!|€£+()")
# One such word may be a name or a measure (b2b); in a long text a few are no disguise of it.
_MIN_LEET_WORDS = 2
_MIN_LEET_SHARE = 0.04  # of the words
_MAX_LEET_WORD = 24  # characters: a longer one is a hash or a path
_SHORT_NUMBER = re.compile(r"\d{1,3}\W?")
# Single letters with gaps of one kind: three or more, or a word with marks between its letters
_SPELLED = re.compile(
    r"(?<![^\W_])[^\W\d_](?P<gap>[ \t]+|[^\w\s]|_)[^\W\d_](?:(?P=gap)[^\W\d_])+(?![^\W_])"
)
# One of the two pieces has two letters: not e.g.
_SPLIT_WORD = re.compile(
    r"(?<=[^\W\d_]{2})[.\-_*·|~/\\+^=]++(?=[^\W\d_])"
    r"|(?<=[^\W\d_])[.\-_*·|~/\\+^=]++(?=[^\W\d_]{2})"
)
_LETTER_RUN = re.compile(r"([^\W\d_])\1{2,}")  # three or more: sooo
_MIN_RUN_SHARE = 0.15  # of the words: a chat message has one or two (sooo, hmmm)
_LINK = re.compile(r"://|www\.")
# Words joined by hyphens and slashes are common in prose, also several of them; not in half of it.
_MIN_SPLIT_WORDS = 3
_MIN_SPLIT_SHARE = 0.45
_MIN_ACCENTED_SHARE = 0.25  # of letters; Vietnamese has more, but is no language of these readings
_MIN_ODD_CASE_SHARE = 0.3  # of words: text about code has some in camel case
_ODD_CASE = re.compile(r"\b[A-Z]*[a-z]+[A-Z]\w*\b")
_CASE_CHANGE = re.compile(r"[a-z][A-Z]")  # in each match of the one before

_BASE64 = re.compile(r"(?<![\w+/=])[A-Za-z0-9+/_-]{16,}={0,2}(?![\w+/=])")
_HEX = re.compile(r"(?<![\w])(?:0x)?(?:[0-9a-fA-F]{2}[ :,]?){8,}(?![\w])")
_HEX_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}){4,}")
_BINARY = re.compile(r"(?<!\d)(?:[01]{8}[ ,]?){4,}(?!\d)")
_DECIMAL = re.compile(r"(?<!\d)(?:1?\d{2}[ ,;]+){8,}1?\d{2}(?!\d)")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){3}")
_ENTITY = re.compile(r"(?:&#x?[0-9a-fA-F]+;){2}")
_MORSE = re.compile(r"(?<![\w.-])[.-]{1,5}(?:(?: | ?/ ?|\n)[.-]{1,5}){7,}(?![\w.-])")
_MORSE_CODE = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- "
    "-. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
)
_MORSE_LETTERS = dict(zip(_MORSE_CODE.split(), "abcdefghijklmnopqrstuvwxyz", strict=True))
_PARTS = re.compile(r"[^\n.!?:\"“”]+")
_ATBASH = str.maketrans("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba")

# What an ASCII text needs for a mask or a code to be undone, without the look-around that a linear
# search has not. It spares ordinary texts a dozen searches, which take thirty times as long.
_GAP = r"(?:[ \t]+|[^a-zA-Z0-9_\s]|_)"
_SIGNS_OF_MASKS = (
    r"[a-z][A-Z]",
    rf"(?:^|[^a-zA-Z0-9])[a-zA-Z]{_GAP}[a-zA-Z](?:{_GAP}[a-zA-Z])+(?:[^a-zA-Z0-9]|$)",
    r"(?:[a-zA-Z][.\-_*|~/\\+^=]+[a-zA-Z](?s:.*)){3}",
    "|".join(letter * 3 for letter in string.ascii_letters),
    r"[a-zA-Z]\S*[0-9@$|+]|[0-9@$|+]\S*[a-zA-Z]|\S\(|[)!]\S",
)
_SIGNS_OF_CODES = (
    r"%[0-9a-fA-F]{2}|&#|\\[xu]",
    r"(?:[01]{8}[ ,]?){4}",
    r"(?:[0-9a-fA-F]{2}[ :,]?){8}",
    r"(?:[0-9]{2,3}[ ,;]+){8}",
    r"[.\-]{1,5}(?:(?: | ?/ ?|\n)[.\-]{1,5}){7}",
    r"[A-Za-z0-9+/_\-]{16}",
)


@cache
def _sign_search() -> LinearRegex:
    signs = (*_SIGNS_OF_MASKS, *_SIGNS_OF_CODES)
    return LinearRegex("|".join(f"(?:{sign})" for sign in signs))


def alternative_readings(text: str) -> tuple[str, ...]:
    """Returns the unmasked and the decoded text, those of them that differ from the text."""
    if text.isascii() and not _sign_search().matches(text):
        decoded = _PARTS.sub(_decode_part, text)
        if decoded == text:
            return ()
    known = {_key(text)}
    readings: list[str] = []
    decoded = _decode(text)
    unmasked = _unmask(text)
    for reading in (unmasked, decoded, unmasked if decoded == text else _unmask(decoded)):
        if reading != text and _key(reading) not in known:
            known.add(_key(reading))
            readings.append(reading)
    return tuple(readings)


def _key(text: str) -> str:
    return " ".join(text.split())


# -- masks ----------------------------------------------------------------------------------------


def _unmask(text: str) -> str:
    """Returns the text as a human reads it, with the guesses that `clean_text` does not dare."""
    if not text.isascii():
        text = _unmask_characters(text)
    # Most texts hold no sign of a mask: one search of the text spares a search of each word.
    if _CASE_CHANGE.search(text) and (
        len(_ODD_CASE.findall(text)) >= max(2, _MIN_ODD_CASE_SHARE * len(text.split()))
    ):
        text = text.lower()
    text = _SPELLED.sub(lambda match: re.sub(r"[\W_]", "", match.group()), text)
    words = text.split()
    if _SPLIT_WORD.search(text) and not _LINK.search(text):
        split_count = sum(map(bool, map(_SPLIT_WORD.search, words)))
        if split_count >= max(_MIN_SPLIT_WORDS, _MIN_SPLIT_SHARE * len(words)):
            text = _SPLIT_WORD.sub("", text)
    words_with_runs = 0
    if _LETTER_RUN.search(text):
        words_with_runs = sum(map(bool, map(_LETTER_RUN.search, words)))
    if words_with_runs >= max(_MIN_SPLIT_WORDS, _MIN_RUN_SHARE * len(words)):
        text = _LETTER_RUN.sub(r"\1", text)
    return _unmask_leet(text)


def _unmask_characters(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_EMOJI_LETTERS | _TAG_CHARACTERS))
    text = "".join(
        c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Co") or c in "\n\t"
    )
    letters = sum(c.isalpha() for c in text)
    turned = text.translate(UPSIDE_DOWN)
    if sum(map(str.__ne__, text, turned)) >= _MIN_ACCENTED_SHARE * max(1, letters):
        backwards = turned[::-1]
        if looks_english(backwards):
            return backwards
    decomposed = unicodedata.normalize("NFD", text)
    marks = sum(unicodedata.category(c) in ("Mn", "Me") for c in decomposed)
    if marks >= _MIN_ACCENTED_SHARE * max(1, letters):
        bare = "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Me"))
        text = bare if share_of_common_words(bare) or looks_english(bare) else text
    foreign = sum(c in _CONFUSABLE_CHARACTERS for c in text)
    folded = text.translate(CONFUSABLES)
    # Whole words of another alphabet are that language, unless they read as English when folded.
    return folded if foreign and (foreign < 0.5 * letters or looks_english(folded)) else text


_CONFUSABLE_CHARACTERS = frozenset(map(chr, CONFUSABLES))


def _unmask_leet(text: str) -> str:
    """Maps digits and signs to letters if several words mix them with letters."""
    if _LEET_CHARACTERS.isdisjoint(text):
        return text
    words = _WORD.findall(text)
    masked = [w for w in words if _mixes_letters(w) and not _ORDINARY_NUMBER.fullmatch(w)]
    if len(masked) < max(_MIN_LEET_WORDS, _MIN_LEET_SHARE * len(words)):
        return text

    def fold(match: re.Match[str]) -> str:
        word = match.group()
        # Amid such words a number is a word, too: 70 for "to".
        is_word = _mixes_letters(word) or _SHORT_NUMBER.fullmatch(word)
        return word.translate(_LEET) if is_word and not _LINK.search(word) else word

    return _WORD.sub(fold, text)


def _mixes_letters(word: str) -> bool:
    """Returns whether a word has letters and, before its last sign, a substitute for one."""
    if _LEET_CHARACTERS.isdisjoint(word):
        return False
    core = word.strip(".,;:?\"'").rstrip("!)").lstrip("(")
    return (
        len(core) <= _MAX_LEET_WORD
        and any(map(str.isalpha, core))
        and not _LEET_CHARACTERS.isdisjoint(core)
    )


# -- codes ----------------------------------------------------------------------------------------


def _decode(text: str) -> str:
    """Returns the text with its encoded parts decoded, where they decode to words."""
    if "%" in text and _PERCENT.search(text):
        text = _accept(text, unquote(text))
    if "&#" in text and _ENTITY.search(text):
        text = _accept(text, html.unescape(text))
    for pattern, decode in _RUNS:
        text = pattern.sub(lambda match, decode=decode: _decode_run(match, decode), text)  # type: ignore[misc]
    return _PARTS.sub(_decode_part, text)


def _accept(text: str, decoded: str) -> str:
    return decoded if decoded.isprintable() or "\n" in decoded else text


def _decode_run(match: re.Match[str], decode: Callable[[str], str]) -> str:
    """Returns what an encoded run decodes to; the run itself if that is no text."""
    run = match.group()
    try:
        decoded = decode(run)
    except (ValueError, binascii.Error, KeyError):
        return run
    letters = sum(c.isalpha() or c.isspace() for c in decoded)
    is_text = decoded.isascii() and len(decoded) >= 4 and letters >= 0.8 * len(decoded)
    return f" {decoded} " if is_text and any(map(str.isspace, decoded)) else run


def _decode_base64(run: str) -> str:
    padded = run.rstrip("=").replace("-", "+").replace("_", "/")
    padded += "=" * (-len(padded) % 4)
    return base64.b64decode(padded, validate=True).decode()


def _decode_hex(run: str) -> str:
    return bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", run.removeprefix("0x"))).decode()


def _decode_escapes(run: str) -> str:
    return "".join(chr(int(code, 16)) for code in re.findall(r"\\[xu]([0-9a-fA-F]+)", run))


def _decode_binary(run: str) -> str:
    return bytes(int(byte, 2) for byte in re.findall(r"[01]{8}", run)).decode()


def _decode_decimal(run: str) -> str:
    return bytes(map(int, re.findall(r"\d+", run))).decode()


def _decode_morse(run: str) -> str:
    words = re.split(r"\s*/\s*|\n|  +", run)
    return " ".join("".join(_MORSE_LETTERS[sign] for sign in word.split()) for word in words)


_RUNS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (_HEX_ESCAPES, _decode_escapes),
    (_BINARY, _decode_binary),
    (_HEX, _decode_hex),
    (_DECIMAL, _decode_decimal),
    (_MORSE, _decode_morse),
    (_BASE64, _decode_base64),
)


def _decode_part(match: re.Match[str]) -> str:
    """Returns a sentence that is English only when its letters are shifted or turned round."""
    part = match.group()
    # Real sentences of English have one of its most common words among any four, nearly always.
    if len(part) > _MAX_PART or part.count(" ") < 3 or has_common_word(part):
        return part
    for decode in _PART_DECODERS:
        decoded = decode(part)
        if share_of_common_words(decoded) >= _MIN_COMMON and looks_english(decoded):
            return decoded
    return part


def _shift_letters(part: str, by: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return part.lower().translate(str.maketrans(letters, letters[by:] + letters[:by]))


_MAX_PART = 2_000  # characters: bounds the time of the 29 decoders; a sentence is shorter
# Share of common words. Of 600 sentences of this project's documentation half have a third or more;
# shifted by any number of letters, 198 of 200 have 0.15 or less. `looks_english` decides the rest.
_MIN_COMMON = 0.2
_PART_DECODERS: tuple[Callable[[str], str], ...] = (
    lambda part: codecs.decode(part, "rot13"),
    lambda part: part[::-1],
    lambda part: " ".join(word[::-1] for word in part.split()),
    lambda part: part.lower().translate(_ATBASH),
    *(lambda part, by=by: _shift_letters(part, by) for by in range(1, 26)),
)
