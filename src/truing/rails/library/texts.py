"""Rails on the text alone: personal data, patterns, secrets, links, hidden characters, length, repetition, language.

`check text input` and `check text output` run every check that has a block under ``truing:``. What can be mended is
mended (hidden characters dropped, secrets and foreign links masked); the rest blocks with its reason.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from truing.core.language_id import detect_language
from truing.rails.actions import RailOutcome
from truing.rails.library import pii
from truing.rails.runtime.turn_context import Turn

_TARGET = {"input": "user_message", "output": "bot_message", "retrieval": "relevant_chunks"}
# Characters that do not show: zero-width, bidirectional controls, tags (the carrier of "ASCII smuggling"), soft hyphens.
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_LINK = re.compile(r"(?i)\b(?:https?|ftp)://([^\s/<>\"')\]]+)[^\s<>\"')\]]*")
_MARKDOWN_IMAGE = re.compile(r"!\[[^\]]{0,300}\]\(\s*(?:https?:)?//[^)]{0,2000}\)")
SECONDS = 2.0  # for the user's own patterns


def block(turn: Turn, name: str) -> dict[str, Any]:
    """The settings under ``truing: NAME:``; empty where there are none."""
    found = turn.services.config.truing.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


def _nemo(turn: Turn, name: str, source: str) -> dict[str, Any]:
    rails = (turn.services.config.raw.get("rails") or {}).get("config") or {}
    return dict((rails.get(name) or {}).get(source) or {})


def _sensitive(turn: Turn, source: str, text: str) -> list[pii.Span]:
    options = _nemo(turn, "sensitive_data_detection", source)
    wanted = (
        options.get("entities") or block(turn, "sensitive").get("entities") or list(pii.PERSONAL)
    )
    own, by_model = pii.check_names(wanted, "sensitive_data_detection")
    found = pii.find(text, own)
    if by_model:
        from truing.rails.library.presidio import find_by_model

        found = list(
            pii._apart(
                [*found, *find_by_model(text, by_model, float(options.get("score_threshold", 0.4)))]
            )
        )
    return found


def _kinds(found: list[pii.Span]) -> str:
    return ", ".join(f"{n} x {e}" for e, n in sorted(Counter(s.entity for s in found).items()))


async def detect_sensitive_data(turn: Turn, source: str, text: str, **params: Any) -> RailOutcome:
    """Blocks a text with personal data of the wanted kinds."""
    found = _sensitive(turn, source, text or "")
    if not found:
        return RailOutcome.allow(metadata={"has_sensitive_data": False})
    turn.because(f"personal data: {_kinds(found)}", score=1.0)
    return RailOutcome.block(reason=_kinds(found), metadata={"has_sensitive_data": True})


async def mask_sensitive_data(turn: Turn, source: str, text: str, **params: Any) -> RailOutcome:
    """Puts ``<ENTITY>`` in the place of personal data of the wanted kinds."""
    found = _sensitive(turn, source, text or "")
    if not found:
        return RailOutcome.allow()
    turn.because(f"masked {_kinds(found)}", score=1.0)
    masked = pii.mask(text, found)
    return RailOutcome(
        decision="transform", transforms={_TARGET[source]: masked}, metadata={"masked_text": masked}
    )


async def detect_regex_pattern(turn: Turn, source: str, text: str, **params: Any) -> RailOutcome:
    """Blocks a text that one of the configuration's patterns finds; retrieved chunks are dropped instead."""
    options = _nemo(turn, "regex_detection", source)
    flags = re.IGNORECASE if options.get("case_insensitive") else 0
    patterns = [(p, re.compile(str(p), flags)) for p in options.get("patterns") or ()]
    if not patterns or not text:
        return RailOutcome.allow()
    # A pattern of the user's may be slow on some text: it runs beside the event loop, and too slow counts as found.
    try:
        work = asyncio.to_thread(lambda: [p for p, made in patterns if made.search(text)])
        found = await asyncio.wait_for(work, SECONDS)
    except TimeoutError:
        found = ["(took too long)"]
    if not found:
        return RailOutcome.allow()
    turn.because(f"matches {', '.join(map(str, found))}", score=1.0)
    if source == "retrieval":
        return RailOutcome(decision="transform", transforms={"relevant_chunks": ""})
    return RailOutcome.block(metadata={"detections": found})


class _Mended:
    """A text on its way through the checks: what was changed, and the first reason to block."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.changes: list[str] = []
        self.reason: str | None = None

    def object(self, reason: str) -> None:
        """The first objection stands."""
        self.reason = self.reason or reason


def _invisible(found: _Mended, settings: Mapping[str, Any]) -> None:
    hidden = _HIDDEN.findall(found.text)
    if not hidden:
        return
    if settings.get("action", "remove") == "block":
        found.object("it holds characters that do not show")
    else:
        found.text = _HIDDEN.sub("", found.text)
        found.changes.append(f"{len(hidden)} hidden characters removed")


def _secrets(found: _Mended, settings: Mapping[str, Any]) -> None:
    spans = pii.find(found.text, pii.SECRETS)
    if not spans:
        return
    if settings.get("action", "mask") == "block":
        found.object(f"it holds a secret ({_kinds(spans)})")
    else:
        found.text = pii.mask(found.text, spans)
        found.changes.append(f"masked {_kinds(spans)}")


def _urls(found: _Mended, settings: Mapping[str, Any]) -> None:
    allowed = [str(d).lower() for d in settings.get("allow") or ()]

    def foreign(host: str) -> bool:
        bare = host.rpartition("@")[2].split(":")[0].lower()
        return not any(bare == d or bare.endswith(f".{d}") for d in allowed)

    hosts = [m.group(1) for m in _LINK.finditer(found.text) if foreign(m.group(1))]
    # A remote image carries data away as soon as it is shown, before anybody clicks.
    images = [
        m
        for m in _MARKDOWN_IMAGE.findall(found.text)
        if (link := _LINK.search(m)) is None or foreign(link.group(1))
    ]
    if not hosts and not images:
        return
    if settings.get("action", "block") == "mask":
        found.text = _LINK.sub(
            lambda m: "<URL>" if foreign(m.group(1)) else m.group(),
            _MARKDOWN_IMAGE.sub("<URL>", found.text),
        )
        found.changes.append(f"{len(hosts) or len(images)} links masked")
    else:
        found.object("it links to a place that is not on the list")


def _length(found: _Mended, settings: Mapping[str, Any]) -> None:
    characters, words = settings.get("max_characters"), settings.get("max_words")
    if characters is not None and len(found.text) > int(characters):
        found.object(f"it is longer than {int(characters)} characters")
    if words is not None and len(found.text.split()) > int(words):
        found.object(f"it is longer than {int(words)} words")


def _repetition(found: _Mended, settings: Mapping[str, Any]) -> None:
    words = re.findall(r"\w+", found.text.lower())
    if len(words) < int(settings.get("min_words", 40)):
        return
    grams = Counter(zip(words, words[1:], words[2:], strict=False))
    repeated = sum(n for n in grams.values() if n > 1) / max(1, sum(grams.values()))
    if repeated > float(settings.get("max_share", 0.5)):
        found.object("it repeats itself over and over")


def _language(found: _Mended, settings: Mapping[str, Any]) -> None:
    allowed = [str(c) for c in settings.get("allow") or ("en",)]
    if len(found.text.split()) < int(settings.get("min_words", 3)):
        return  # too short to tell: a name or a number has no language
    spoken = detect_language(found.text)
    if spoken not in allowed:
        found.object(f"I only speak {', '.join(allowed)}")


_CHECKS = {
    "invisible": _invisible,
    "secrets": _secrets,
    "urls": _urls,
    "length": _length,
    "repetition": _repetition,
    "language": _language,
}


async def check_text(turn: Turn, source: str, text: str, **params: Any) -> RailOutcome:
    """Runs the checks that have a block under ``truing:``; a block may name its stages (``stages: [input]``)."""
    found = _Mended(text or "")
    for name, check in _CHECKS.items():
        if name not in turn.services.config.truing:
            continue
        settings = block(turn, name)
        if source in (settings.get("stages") or ("input", "output")):
            check(found, settings)
    if found.reason is not None:
        turn.because(found.reason, score=1.0)
        return RailOutcome.block(reason=found.reason)
    if found.text != (text or ""):
        turn.because("; ".join(found.changes))
        return RailOutcome(decision="transform", transforms={_TARGET[source]: found.text})
    return RailOutcome.allow()


ACTIONS = (detect_sensitive_data, mask_sensitive_data, detect_regex_pattern, check_text)
