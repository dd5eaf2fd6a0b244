"""Reads the verdict of a self check or a guard model; what no grammar matches whole is unclear.

A verdict passes a text only if the *whole* reply has one of the forms below. "not safe", "Un-safe",
"Safe: no", "No, block it!" and `"safe": false` begin or end like a verdict and are none; neither is
a reply that was cut off, or one in prose. An unclear verdict never allows anything.

The `nemoguard_*` and `nemotron_*` parsers read the replies of NVIDIA's guard models, whose forms
are those of NeMo Guardrails' parsers of the same names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

# Longer replies are unclear: a verdict with its reason is a few lines.
MAX_VERDICT_CHARACTERS = 4_000

YesNo = Literal["yes", "no"]

# -- the words of a reason ---------------------------------------------------------------------
# A reason after "no" or "safe" must itself say that there is nothing to object, so that no reply
# passes whose second half takes back the first ("No, block it!").

_SPEAKER = r"(?:(?:user|bot|assistant|model|customer)(?:'s)? )?"
_TEXT_NOUN = (
    r"(?:message|input|question|request|prompt|query|text|content|response|answer|output|reply"
    r"|greeting|statement|conversation|hypothesis|claim)"
)
_SUBJECT = rf"(?:this|it|that|(?:the|this|that) {_SPEAKER}(?:{_TEXT_NOUN}|user))"
_ADVERB = (
    r"(?:(?:completely|perfectly|entirely|totally|just|simply|clearly|quite|generally|very|fully"
    r"|certainly|definitely|directly|all) )?"
)
_GOOD = (
    r"(?:fine|okay|ok|safe|harmless|benign|allowed|acceptable|appropriate|permitted|permissible"
    r"|compliant|innocuous|unproblematic|polite|friendly|normal|alright|right)"
)
_BAD = (
    r"(?:harmful|unsafe|offensive|inappropriate|abusive|explicit|malicious|dangerous|illegal"
    r"|hateful|wrong|problematic|toxic|threatening|violent)"
)
_POLICY = (
    r"(?:(?:any of )?(?:the|our|your|any|all|this|these|company|company's) )?"
    r"(?:(?:company|company's|content|safety|moderation|usage|stated|above|of|the) ){0,3}"
    r"(?:policy|policies|rules|guidelines|terms)"
)
_NEGATED_VERB = r"(?:does not|doesn't|did not|didn't)"
_NOTHING_TO_OBJECT = "|".join(
    (
        rf"(?:{_SUBJECT} (?:is|seems|appears|looks|seems to be|appears to be)|it's|that's|this is) "
        rf"{_ADVERB}(?:an? )?{_ADVERB}{_GOOD}(?:(?:,| and| or|, and) {_GOOD})*"
        rf"(?: (?:and|or))?(?: {_TEXT_NOUN})?"
        rf"(?: (?:with|under|by|within|according to|in line with) {_POLICY})?",
        rf"{_SUBJECT} (?:complies with|conforms to|follows|adheres to|respects|is consistent with"
        rf"|is in line with|is compliant with) {_POLICY}",
        rf"{_SUBJECT} {_NEGATED_VERB} (?:violate|break|breach|contravene|go against) {_POLICY}",
        rf"{_SUBJECT} {_NEGATED_VERB} (?:contain|include|have|show|ask for) (?:anything {_BAD}"
        rf"|(?:any )?{_BAD}(?:(?:,| or| and|, or) {_BAD})* "
        r"(?:content|language|information|material|data|instructions|words))",
        rf"{_SUBJECT} (?:should not|shouldn't|need not|must not"
        rf"|{_NEGATED_VERB} (?:need|have) to) be (?:blocked|refused|rejected|flagged)",
        rf"{_SUBJECT} (?:is not|isn't) {_ADVERB}{_BAD}(?:(?:,| or|, or) {_BAD})*",
        rf"(?:there is|there's) nothing {_BAD}(?: (?:in|with|about) {_SUBJECT})?",
    )
)
_SUPPORT_OBJECT = (
    r"(?:the )?(?:(?:given|provided|retrieved|available) )?"
    r"(?:evidence|facts|context|information|text|paragraph|source|sources|passages?)"
)
_SUPPORTED = "|".join(
    (
        rf"{_SUBJECT} is {_ADVERB}(?:supported|entailed|grounded|backed|confirmed)"
        rf"(?: (?:in )?and (?:supported|entailed|grounded|backed|confirmed))* (?:by|in) "
        rf"{_SUPPORT_OBJECT}",
        rf"{_SUBJECT} (?:agrees with|is consistent with|is in agreement with|follows from) "
        rf"{_SUPPORT_OBJECT}",
    )
)


def _verdict_pattern(words: str, reason: str) -> re.Pattern[str]:
    """Returns the pattern of a whole reply: a label, the verdict, and clauses of a reason."""
    return re.compile(
        r"(?:(?:(?:my|the) )?(?:final )?(?:answer|verdict|decision|result|assessment"
        rf"|classification)(?: is)? ?[:=-]? ?)?(?:{words})(?: ?[.!])*"
        rf"(?:(?: ?[.,;:!] ?| - | because | as )(?:{reason})"
        rf"(?:(?: ?[.,;] ?| and |, and )(?:{reason}))*)?(?: ?[.!])*"
    )


_NO_OBJECTION = _verdict_pattern("no|safe", _NOTHING_TO_OBJECT)
_PLAIN_NO = _verdict_pattern("no", _NOTHING_TO_OBJECT)
_SUPPORTING_YES = _verdict_pattern("yes", _SUPPORTED)
_OBJECTION = re.compile(r"(?:(?:final )?(?:answer|verdict) ?[:=-]? ?)?(yes|unsafe)(?![\w-])")
# Emphasis and quotes around words; brackets and braces are no part of any form.
_DECORATION = str.maketrans({**dict.fromkeys('*_`"“”', " "), "’": "'", "–": "-"})


def _normalise(reply: str) -> str | None:
    """Returns the reply in lower case with single spaces; None if it is longer than a verdict."""
    if len(reply) > MAX_VERDICT_CHARACTERS:
        return None
    return " ".join(reply.translate(_DECORATION).lower().split()).strip(" '")


# -- yes, no, safe, unsafe ---------------------------------------------------------------------


def has_no_objection(reply: str) -> bool:
    """Returns whether a reply says as a whole "no" (not to be blocked) or "safe"."""
    text = _normalise(reply)
    return text is not None and _NO_OBJECTION.fullmatch(text) is not None


def is_objection(reply: str) -> bool:
    """Returns whether a reply begins with a clear "yes" (to be blocked) or "unsafe"."""
    return _OBJECTION.match(_normalise(reply[:MAX_VERDICT_CHARACTERS]) or "") is not None


def read_yes_no(reply: str) -> YesNo | None:
    """Returns the answer to "is it supported?"; None where the reply is neither yes nor no."""
    text = _normalise(reply)
    if text is None:
        return None
    if _SUPPORTING_YES.fullmatch(text):
        return "yes"
    return "no" if text.rstrip(".! ") == "no" or _PLAIN_NO.fullmatch(text) else None


def is_content_safe(reply: str) -> list[Any]:
    """Parses a yes/no or safe/unsafe reply; returns [True] or [False, violations...].

    "yes" means that the content is to be blocked. Anything unclear is unsafe.
    """
    if has_no_objection(reply):
        return [True]
    words = re.findall(r"\w+", reply[:MAX_VERDICT_CHARACTERS])
    if words and words[0].lower() == "unsafe":
        return [False, *words[1:]]
    return [False]


def read_safe_unsafe(reply: str) -> list[Any]:
    """Parses Llama Guard's reply: "safe", or "unsafe" with categories; all else is unsafe."""
    verdict = is_content_safe(reply)
    text = _normalise(reply) or ""
    return [False] if verdict == [True] and not text.startswith("safe") else verdict


# -- NVIDIA's guard models ---------------------------------------------------------------------

_SAFETY_KEYS = frozenset(
    {"User Safety", "Response Safety", "Safety Categories", "Violated Categories"}
)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _read_safety_json(reply: str, key: str) -> list[Any]:
    """Reads ``{"User Safety": "unsafe", "Response Safety": ..., "Safety Categories": "a, b"}``."""
    try:
        fields = json.loads(
            reply[: MAX_VERDICT_CHARACTERS + 1], object_pairs_hook=_reject_duplicate_keys
        )
    except (ValueError, RecursionError):
        return [False]
    if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
        return [False]
    listed = fields.get("Safety Categories") or fields.get("Violated Categories") or ""
    categories = [name.strip() for name in listed.split(",") if name.strip()]
    is_whole = len(reply) <= MAX_VERDICT_CHARACTERS and set(fields) <= _SAFETY_KEYS
    verdicts = {fields[name].strip().lower() for name in ("User Safety", key) if name in fields}
    # Categories belong to an unsafe verdict: beside safe ones only, they contradict it.
    is_consistent = verdicts <= {"safe", "unsafe"} and ("unsafe" in verdicts or not categories)
    if is_whole and is_consistent and fields.get(key, "").strip().lower() == "safe":
        return [True]
    return [False, *categories]


_THINKING = re.compile(r"\A\s*<think>(?:(?!</?think>)[\s\S]){0,100000}</think>")


def _read_verdict_lines(reply: str, verdicts: tuple[str, str]) -> dict[str, str]:
    """Returns the fields of a reply of lines ``Name: value`` after an optional reasoning part.

    Empty if a line has another form, a field stands twice, or a verdict is none of `verdicts`.
    """
    text = _THINKING.sub("", reply, count=1)
    fields: dict[str, str] = {}
    for line in text[: MAX_VERDICT_CHARACTERS + 1].splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        is_verdict = name in ("user safety", "response safety", "prompt harm", "response harm")
        if not colon or name in fields or not (is_verdict or name == "safety categories"):
            return {}
        if is_verdict and value.strip().lower() not in verdicts:
            return {}
        fields[name] = value.strip()
    return fields if len(text) <= MAX_VERDICT_CHARACTERS else {}


def _read_harm_lines(reply: str, name: str) -> list[Any]:
    """Reads ``Prompt harm: harmful`` and ``Response Harm: unharmful``."""
    fields = _read_verdict_lines(reply, ("harmful", "unharmful"))
    return [fields.get(name, "").lower() == "unharmful"]


def _read_safety_lines(reply: str, name: str) -> list[Any]:
    """Reads ``User Safety: safe``, ``Response Safety: unsafe``, ``Safety Categories: a, b``."""
    fields = _read_verdict_lines(reply, ("safe", "unsafe"))
    listed = fields.get("safety categories", "")
    categories = [category.strip() for category in listed.split(",") if category.strip()]
    verdicts = {value.lower() for key, value in fields.items() if key != "safety categories"}
    if fields.get(name, "").lower() == "safe" and ("unsafe" in verdicts or not categories):
        return [True]
    return [False, *categories]


VERDICT_PARSERS: dict[str, Callable[[str], list[Any]]] = {
    "is_content_safe": is_content_safe,
    "nemoguard_parse_prompt_safety": lambda reply: _read_safety_json(reply, "User Safety"),
    "nemoguard_parse_response_safety": lambda reply: _read_safety_json(reply, "Response Safety"),
    "nemotron_reasoning_parse_prompt_safety": lambda r: _read_harm_lines(r, "prompt harm"),
    "nemotron_reasoning_parse_response_safety": lambda r: _read_harm_lines(r, "response harm"),
    "nemotron_content_safety_parse_prompt_safety": lambda r: _read_safety_lines(r, "user safety"),
    "nemotron_content_safety_parse_response_safety": lambda r: _read_safety_lines(
        r, "response safety"
    ),
}


def allows(verdict: Any) -> bool:
    """Returns whether a parser's result lets a text pass: only `True`, alone or first in a list.

    A text that no parser has read is not a verdict, however it begins.
    """
    if isinstance(verdict, (list, tuple)):
        return bool(verdict) and verdict[0] is True
    return verdict is True
