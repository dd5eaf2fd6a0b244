"""Rails on the text alone: personal data, patterns, secrets, links, hidden characters, length, ...

`check text input` and `check text output` run every check that has a block under ``truing:``. A
check either fixes the text (drops hidden characters, masks secrets and links) or blocks it with a
reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from truing.core.language_id import detect_language
from truing.rails.actions import RailOutcome
from truing.rails.library import pii
from truing.rails.runtime.turn_context import TurnContext
from truing.rails.runtime.user_patterns import load_user_pattern

# The source that a rail checks -> the variable that it may rewrite.
_VARIABLES = {"input": "user_message", "output": "bot_message", "retrieval": "relevant_chunks"}
# Characters that do not show: soft hyphens, zero-width characters, bidirectional controls, and
# tags, which carry instructions in "ASCII smuggling".
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_LINK = re.compile(r"(?i)\b(?:https?|ftp)://([^\s/<>\"')\]]+)[^\s<>\"')\]]*")
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]{0,300}\]\(\s*(?:https?:)?//[^)]{0,2000}\)")


def rail_settings(turn: TurnContext, name: str) -> dict[str, Any]:
    """Returns the settings under ``truing: NAME:``; empty where there are none."""
    settings = turn.services.config.truing.get(name)
    return dict(settings) if isinstance(settings, Mapping) else {}


def _nemo_settings(turn: TurnContext, name: str, source: str) -> dict[str, Any]:
    """Returns the settings under ``rails: config: NAME: SOURCE:``, where NeMo has them."""
    rails = (turn.services.config.raw.get("rails") or {}).get("config") or {}
    return dict((rails.get(name) or {}).get(source) or {})


# -- personal data and patterns ----------------------------------------------------------------


def _find_sensitive_data(turn: TurnContext, source: str, text: str) -> list[pii.EntitySpan]:
    """Returns the spans of the configured entities (default: all that have a pattern)."""
    settings = _nemo_settings(turn, "sensitive_data_detection", source)
    own_settings = rail_settings(turn, "sensitive")
    entities = (
        settings.get("entities") or own_settings.get("entities") or list(pii.PERSONAL_PATTERNS)
    )
    by_pattern, by_presidio = pii.split_entities(entities, "sensitive_data_detection")
    spans = pii.find_spans(text, by_pattern)
    if not by_presidio:
        return spans
    from truing.rails.library.presidio import find_presidio_spans

    threshold = float(settings.get("score_threshold", 0.4))
    return pii.remove_overlaps([*spans, *find_presidio_spans(text, by_presidio, threshold)])


def _describe_spans(spans: list[pii.EntitySpan]) -> str:
    counts = Counter(span.entity for span in spans)
    return ", ".join(f"{count} x {entity}" for entity, count in sorted(counts.items()))


async def detect_sensitive_data(
    turn: TurnContext, source: str, text: str, **params: Any
) -> RailOutcome:
    """Blocks a text with personal data of the configured kinds."""
    spans = _find_sensitive_data(turn, source, text or "")
    if not spans:
        return RailOutcome.allow(metadata={"has_sensitive_data": False})
    turn.set_reason(f"personal data: {_describe_spans(spans)}", score=1.0)
    return RailOutcome.block(reason=_describe_spans(spans), metadata={"has_sensitive_data": True})


async def mask_sensitive_data(
    turn: TurnContext, source: str, text: str, **params: Any
) -> RailOutcome:
    """Replaces personal data of the configured kinds by ``<ENTITY>``."""
    spans = _find_sensitive_data(turn, source, text or "")
    if not spans:
        return RailOutcome.allow()
    turn.set_reason(f"masked {_describe_spans(spans)}", score=1.0)
    masked = pii.mask_spans(text, spans)
    return RailOutcome(
        decision="transform",
        transforms={_VARIABLES[source]: masked},
        metadata={"masked_text": masked},
    )


async def detect_regex_pattern(
    turn: TurnContext, source: str, text: str, **params: Any
) -> RailOutcome:
    """Blocks a text that a configured pattern matches; drops retrieved chunks instead."""
    settings = _nemo_settings(turn, "regex_detection", source)
    ignore_case = bool(settings.get("case_insensitive"))
    patterns = [str(pattern) for pattern in settings.get("patterns") or ()]
    if not patterns or not text:
        return RailOutcome.allow()
    text = "\n\n".join(map(str, text)) if isinstance(text, list) else str(text)
    detections: list[str] = []
    unclear: list[str] = []
    for pattern in patterns:
        result = await load_user_pattern(pattern, "search", ignore_case).matches(text)
        if result is None:
            unclear.append(pattern)
        elif result:
            detections.append(pattern)
    if not detections and not unclear:
        return RailOutcome.allow()
    if detections:
        turn.set_reason(f"matches {', '.join(detections)}", score=1.0)
    else:
        detections = ["(took too long)"]
        turn.set_reason(f"took too long to search, which counts as found: {', '.join(unclear)}")
    if source == "retrieval":
        return RailOutcome(decision="transform", transforms={"relevant_chunks": ""})
    return RailOutcome.block(metadata={"detections": detections})


# -- text checks -------------------------------------------------------------------------------


class _CheckedText:
    """A text on its way through the checks: its fixes so far, and the first reason to block it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fixes: list[str] = []
        self.block_reason: str | None = None

    def fix(self, text: str, description: str) -> None:
        """Replaces the text."""
        self.text = text
        self.fixes.append(description)

    def block(self, reason: str) -> None:
        """Blocks the text; the first reason is kept."""
        self.block_reason = self.block_reason or reason


def _check_invisible(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    hidden = _HIDDEN.findall(checked.text)
    if not hidden:
        return
    if settings.get("action", "remove") == "block":
        checked.block("it holds characters that do not show")
    else:
        text = _HIDDEN.sub("", checked.text)
        checked.fix(text, f"{len(hidden)} hidden characters removed")


def _check_secrets(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    spans = pii.find_spans(checked.text, pii.SECRET_PATTERNS)
    if not spans:
        return
    if settings.get("action", "mask") == "block":
        checked.block(f"it holds a secret ({_describe_spans(spans)})")
    else:
        checked.fix(pii.mask_spans(checked.text, spans), f"masked {_describe_spans(spans)}")


def _check_urls(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    allowed_domains = [str(domain).lower() for domain in settings.get("allow") or ()]

    def is_foreign(host: str) -> bool:
        # The host in ``user@host:port``: what stands before the @ is chosen to deceive.
        domain = host.rpartition("@")[2].split(":")[0].lower()
        return not any(domain == d or domain.endswith(f".{d}") for d in allowed_domains)

    links = [m.group(1) for m in _LINK.finditer(checked.text) if is_foreign(m.group(1))]
    # A remote image sends data in its address as soon as it is shown, without a click. Its address
    # may lack the scheme, so that _LINK does not match it.
    images = [
        image
        for image in _MARKDOWN_IMAGE.findall(checked.text)
        if (link := _LINK.search(image)) is None or is_foreign(link.group(1))
    ]
    if not links and not images:
        return
    if settings.get("action", "block") == "mask":
        text = _MARKDOWN_IMAGE.sub("<URL>", checked.text)
        text = _LINK.sub(lambda m: "<URL>" if is_foreign(m.group(1)) else m.group(), text)
        checked.fix(text, f"{len(links) or len(images)} links masked")
    else:
        checked.block("it links to a place that is not on the list")


def _check_length(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    max_characters, max_words = settings.get("max_characters"), settings.get("max_words")
    if max_characters is not None and len(checked.text) > int(max_characters):
        checked.block(f"it is longer than {int(max_characters)} characters")
    if max_words is not None and len(checked.text.split()) > int(max_words):
        checked.block(f"it is longer than {int(max_words)} words")


def _check_repetition(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    """Blocks a text of which too many trigrams of words occur more than once."""
    words = re.findall(r"\w+", checked.text.lower())
    if len(words) < int(settings.get("min_words", 40)):
        return
    trigrams = Counter(zip(words, words[1:], words[2:], strict=False))
    repeated = sum(count for count in trigrams.values() if count > 1)
    if repeated / max(1, sum(trigrams.values())) > float(settings.get("max_share", 0.5)):
        checked.block("it repeats itself over and over")


def _check_language(checked: _CheckedText, settings: Mapping[str, Any]) -> None:
    allowed = [str(code) for code in settings.get("allow") or ("en",)]
    if len(checked.text.split()) < int(settings.get("min_words", 3)):
        return  # too short to tell: a name or a number has no language
    if detect_language(checked.text) not in allowed:
        checked.block(f"I only speak {', '.join(allowed)}")


# In this order: later checks read the text that earlier ones have fixed.
_CHECKS = {
    "invisible": _check_invisible,
    "secrets": _check_secrets,
    "urls": _check_urls,
    "length": _check_length,
    "repetition": _check_repetition,
    "language": _check_language,
}


async def check_text(turn: TurnContext, source: str, text: str, **params: Any) -> RailOutcome:
    """Runs the checks that have a block under ``truing:`` (for its `stages`; default: both)."""
    checked = _CheckedText(text or "")
    for name, check in _CHECKS.items():
        if name not in turn.services.config.truing:
            continue
        settings = rail_settings(turn, name)
        if source in (settings.get("stages") or ("input", "output")):
            check(checked, settings)
    if checked.block_reason is not None:
        turn.set_reason(checked.block_reason, score=1.0)
        return RailOutcome.block(reason=checked.block_reason)
    if checked.text != (text or ""):
        turn.set_reason("; ".join(checked.fixes))
        return RailOutcome(decision="transform", transforms={_VARIABLES[source]: checked.text})
    return RailOutcome.allow()


ACTIONS = (detect_sensitive_data, mask_sensitive_data, detect_regex_pattern, check_text)
