"""Program checks of an answer (cf. IFEval, Zhou et al. 2023, arXiv 2311.07911).

A check has a kind and values; a text passes or not. Quotes, emphasis, case and a full stop do not
matter unless the check is about them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from truing.core.types import AnswerCheck

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?!\w)")
_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.S)


def _normalise(text: str) -> str:
    return (
        re.sub(r"\s+", " ", text.replace("’", "'").replace("*", "").replace("`", ""))
        .strip()
        .casefold()
    )


def _whole_pattern(value: str) -> re.Pattern[str]:
    # Neither a part of a word nor of a number such as 4.5 or 1,400.
    return re.compile(rf"(?<!\w)(?<!\d[.,]){re.escape(_normalise(value))}(?!\w)(?![.,]\d)")


def _find_whole(text: str, value: str) -> re.Match[str] | None:
    return _whole_pattern(value).search(text)


def _contains(text: str, values: tuple[str, ...]) -> bool:
    return all(_find_whole(_normalise(text), v) for v in values)


def _contains_any(text: str, values: tuple[str, ...]) -> bool:
    return any(_find_whole(_normalise(text), v) for v in values)


def _excludes(text: str, values: tuple[str, ...]) -> bool:
    # Without the first condition an empty answer would pass for lack of words.
    return bool(text.strip()) and not _contains_any(text, values)


def _only(text: str, values: tuple[str, ...]) -> bool:
    # One of the values before the bar, and none of the distractors behind it.
    separator = values.index("|")
    return _contains_any(text, values[:separator]) and not _contains_any(
        text, values[separator + 1 :]
    )


def find_numbers(text: str) -> list[float]:
    """Returns the numbers of a text in order, written in digits, or in words up to twenty."""
    plain = re.sub(r"[A-Za-z]+", lambda m: _word_to_digits(m.group()), text)
    return [float(m.replace(",", "").replace("−", "-")) for m in _NUMBER.findall(plain)]


def _word_to_digits(word: str) -> str:
    return str(_WORDS.index(word.lower())) if word.lower() in _WORDS else word


def _number(text: str, values: tuple[str, ...]) -> bool:
    # What an answer ends with is its result; what follows the last "=" is one too.
    expected = float(values[0])
    numbers_found = find_numbers(text)
    after_equals = find_numbers(text.rpartition("=")[2])[:1] if "=" in text else []
    first = find_numbers(text.strip().split("\n", 1)[0])
    candidates = [*numbers_found[-1:], *after_equals, *(first[-1:] if len(first) == 1 else [])]
    # The last number, the one after the last "=", or the only one of the first line.
    return any(abs(x - expected) < 1e-9 for x in candidates)


def _order(text: str, values: tuple[str, ...]) -> bool:
    plain, position = _normalise(text), 0
    for value in values:
        numbers_found = _whole_pattern(value).search(plain, position)
        if numbers_found is None:
            return False
        position = numbers_found.end()
    return True


def _exact(text: str, values: tuple[str, ...]) -> bool:
    # The case matters: the word stands as given, and not in another case as well.
    bare = text.replace("*", "").replace("`", "")
    return re.search(rf"(?<!\w){re.escape(values[0])}(?!\w)", bare) is not None


def _yes_no(text: str, values: tuple[str, ...]) -> bool:
    first = re.match(r"\W*(yes|no)\b", _normalise(text))
    return first is not None and first.group(1) == values[0]


def _items(text: str, values: tuple[str, ...]) -> bool:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    bulleted = [line for line in lines if _BULLET.match(line)]
    numbers_found = [_normalise(_BULLET.sub("", line)) for line in bulleted or lines]
    return len(set(numbers_found)) == len(numbers_found) == int(values[0]) and all(
        len(item.split()) <= 4 for item in numbers_found
    )


def _max_words(text: str, values: tuple[str, ...]) -> bool:
    words = text.split()
    return 0 < len(words) <= int(values[0]) and all(
        _find_whole(_normalise(text), v) for v in values[1:]
    )


def _frame(text: str, values: tuple[str, ...]) -> bool:
    plain = _normalise(text).strip("\"' ")
    opens, closes = _normalise(values[0]), _normalise(values[1])
    return (
        plain.startswith(opens)
        and plain.rstrip(" .,!\"'").endswith(closes)
        and len(plain.split()) >= 4
    )


def _json(text: str, required_fields: tuple[str, ...]) -> bool:
    # Models wrap JSON in a Markdown fence or a sentence, whatever they were asked for.
    fenced = _FENCE.search(text)
    body = fenced.group(1) if fenced else text
    first, last = body.find("{"), body.rfind("}")
    try:
        parsed = json.loads(body[first : last + 1]) if 0 <= first < last else None
    except (json.JSONDecodeError, RecursionError):
        return False
    expected = dict(v.partition("=")[::2] for v in required_fields)
    return isinstance(parsed, dict) and {str(k): str(v) for k, v in parsed.items()} == expected


def _choice(text: str, values: tuple[str, ...]) -> bool:
    # Indexes of the right choices, a bar, then all choices: by letter first, else by the choice's
    # own words alone.
    separator = values.index("|")
    right, choices = {int(v) for v in values[:separator]}, values[separator + 1 :]
    letter = re.match(
        r"\s*(?:(?:the )?answer(?: is)?:?\s*)?\(?([A-Za-z])[).:]?(?:\s|$)", text, re.I
    )
    if (
        letter
        and (position := ord(letter.group(1).upper()) - 65) < len(choices)
        # Words of English that begin a sentence; a capital A is read as the choice.
        and letter.group(1) not in ("a", "i", "I")
    ):
        return position in right
    plain = _normalise(text)
    named_choices = {position for position, c in enumerate(choices) if _find_whole(plain, c)}
    # A choice whose text is part of another one's ("Paris", "Paris, Texas") is named with it.
    longest_named = {
        position
        for position in named_choices
        if not any(o != position and choices[position] in choices[o] for o in named_choices)
    }
    return bool(longest_named) and longest_named <= right


KINDS: dict[str, Callable[[str, tuple[str, ...]], bool]] = {
    "contains": _contains,
    "contains_any": _contains_any,
    "excludes": _excludes,
    "only": _only,
    "number": _number,
    "order": _order,
    "exact": _exact,
    "yes_no": _yes_no,
    "items": _items,
    "max_words": _max_words,
    "frame": _frame,
    "json": _json,
    "choice": _choice,
}


def passes_check(check: AnswerCheck, text: str) -> bool:
    """Whether a text passes a check; an empty text never does. Raises KeyError for an unknown
    kind.
    """
    return KINDS[check.kind](text, check.values) if text.strip() else False
