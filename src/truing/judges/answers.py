"""Program checks of an answer: `Check(kind, values)` and a text, true or false (cf. IFEval, Zhou et al. 2023,
arXiv 2311.07911). Quotes, emphasis, case and a full stop do not matter unless the check is about them."""

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


def _tidy(text: str) -> str:
    return (
        re.sub(r"\s+", " ", text.replace("’", "'").replace("*", "").replace("`", ""))
        .strip()
        .casefold()
    )


def _whole(value: str) -> re.Pattern[str]:
    # Neither a part of a word nor of a number such as 4.5 or 1,400.
    return re.compile(rf"(?<!\w)(?<!\d[.,]){re.escape(_tidy(value))}(?!\w)(?![.,]\d)")


def _has(text: str, value: str) -> re.Match[str] | None:
    return _whole(value).search(text)


def _contains(text: str, values: tuple[str, ...]) -> bool:
    return all(_has(_tidy(text), v) for v in values)


def _contains_any(text: str, values: tuple[str, ...]) -> bool:
    return any(_has(_tidy(text), v) for v in values)


def _excludes(text: str, values: tuple[str, ...]) -> bool:
    return bool(text.strip()) and not _contains_any(text, values)


def _only(text: str, values: tuple[str, ...]) -> bool:
    # One of the values before the bar, and none of the distractors behind it.
    bar = values.index("|")
    return _contains_any(text, values[:bar]) and not _contains_any(text, values[bar + 1 :])


def numbers(text: str) -> list[float]:
    """The numbers of a text in order, in digits, or in words up to twenty."""
    plain = re.sub(r"[A-Za-z]+", lambda m: _in_digits(m.group()), text)
    return [float(m.replace(",", "").replace("−", "-")) for m in _NUMBER.findall(plain)]


def _in_digits(word: str) -> str:
    return str(_WORDS.index(word.lower())) if word.lower() in _WORDS else word


def _number(text: str, values: tuple[str, ...]) -> bool:
    # What an answer ends with is its result; what follows the last "=" is one too.
    wanted = float(values[0])
    found = numbers(text)
    after = numbers(text.rpartition("=")[2])[:1] if "=" in text else []
    first = numbers(text.strip().split("\n", 1)[0])
    ends = [*found[-1:], *after, *(first[-1:] if len(first) == 1 else [])]
    return any(abs(x - wanted) < 1e-9 for x in ends)


def _order(text: str, values: tuple[str, ...]) -> bool:
    plain, at = _tidy(text), 0
    for value in values:
        found = _whole(value).search(plain, at)
        if found is None:
            return False
        at = found.end()
    return True


def _exact(text: str, values: tuple[str, ...]) -> bool:
    # The case matters: the word stands as given, and not in another case as well.
    bare = text.replace("*", "").replace("`", "")
    return re.search(rf"(?<!\w){re.escape(values[0])}(?!\w)", bare) is not None


def _yes_no(text: str, values: tuple[str, ...]) -> bool:
    first = re.match(r"\W*(yes|no)\b", _tidy(text))
    return first is not None and first.group(1) == values[0]


def _items(text: str, values: tuple[str, ...]) -> bool:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    listed = [line for line in lines if _BULLET.match(line)]
    found = [_tidy(_BULLET.sub("", line)) for line in listed or lines]
    return len(set(found)) == len(found) == int(values[0]) and all(
        len(item.split()) <= 4 for item in found
    )


def _max_words(text: str, values: tuple[str, ...]) -> bool:
    words = text.split()
    return 0 < len(words) <= int(values[0]) and all(_has(_tidy(text), v) for v in values[1:])


def _frame(text: str, values: tuple[str, ...]) -> bool:
    plain = _tidy(text).strip("\"' ")
    opens, closes = _tidy(values[0]), _tidy(values[1])
    return (
        plain.startswith(opens)
        and plain.rstrip(" .,!\"'").endswith(closes)
        and len(plain.split()) >= 4
    )


def _json(text: str, values: tuple[str, ...]) -> bool:
    fenced = _FENCE.search(text)
    found = re.search(r"\{.*\}", fenced.group(1) if fenced else text, re.S)
    try:
        made = json.loads(found.group()) if found else None
    except (json.JSONDecodeError, RecursionError):
        return False
    wanted = dict(v.partition("=")[::2] for v in values)
    return isinstance(made, dict) and {str(k): str(v) for k, v in made.items()} == wanted


def _choice(text: str, values: tuple[str, ...]) -> bool:
    # Indexes of the right choices, a bar, then all choices: by letter first, else by the choice's own words alone.
    bar = values.index("|")
    right, choices = {int(v) for v in values[:bar]}, values[bar + 1 :]
    letter = re.match(
        r"\s*(?:(?:the )?answer(?: is)?:?\s*)?\(?([A-Za-z])[).:]?(?:\s|$)", text, re.I
    )
    if (
        letter
        and (at := ord(letter.group(1).upper()) - 65) < len(choices)
        and letter.group(1) not in ("a", "i", "I")
    ):
        return at in right
    plain = _tidy(text)
    named = {at for at, c in enumerate(choices) if _has(plain, c)}
    longest = {at for at in named if not any(o != at and choices[at] in choices[o] for o in named)}
    return bool(longest) and longest <= right


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


def passes(check: AnswerCheck, text: str) -> bool:
    """Whether a text passes; an empty one never does. KeyError for a kind that does not exist."""
    return KINDS[check.kind](text, check.values) if text.strip() else False
