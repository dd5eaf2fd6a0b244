"""Signs of jailbreaks and injected prompts in a text, by pattern: generic, without a model.

They find what is written in the style of known attacks and little else; docs/rails-library.md has
the figures.
"""

from __future__ import annotations

import re

SHOWN_CHARACTERS = 60  # of a match, in reasons
SUFFIX_WORDS = 20
MIN_UNLIKELY_WORDS = 8  # of the last SUFFIX_WORDS

# Instructions to drop the rules, personas without rules, orders to reveal the prompt, forced
# openings of the answer.
_INSTRUCTIONS = re.compile(
    r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}"
    r"\b(?:instructions?|rules?|guidelines?|prompts?|restrictions?)\b"
    r"|\b(?:ignore|disregard|forget) (?:all|everything|anything) (?:of )?(?:the |that )?(?:above"
    r"|before|previous|said)"
    r"|\b(?:you are now|act as|pretend (?:to be|you are)|from now on you|you speak only as"
    r"|play the role of)\b[^\n]{0,90}\b(?:dan"
    r"|jailbroken|unfiltered|uncensored|amoral|without (?:any )?(?:restrictions?|rules|filters?"
    r"|limits?|ethics)"
    r"|no (?:restrictions?|rules|filters?|limits?|ethics)|(?:answers?|says|tells) (?:every|any|all"
    r"|anything|everything))"
    r"|\bdo anything now\b|\bdeveloper mode\b[^.\n]{0,40}\b(?:on|enabled|activated)\b"
    r"|\b(?:reveal|print|repeat|show|tell me)\b[^.\n]{0,30}\b(?:system prompt|hidden prompt"
    r"|initial instructions|your instructions)\b"
    r"|\bwithout (?:any )?(?:warnings?|disclaimers?|ethical|moral)\b[^.\n]{0,40}"
    r"\b(?:constraints?|considerations?|warnings?|at all)\b"
    r"|\b(?:never|do not|don't|must not|cannot) (?:say|use|write|include|output)\b[^.\n]{0,40}"
    r"\b(?:sorry|cannot|can't|unable|however)\b"
    r"|\bno (?:apolog(?:y|ies)|refusals?)\b[^.\n]{0,60}\b(?:warnings?|cannot|disclaimers?|unable)\b"
    r"|\b(?:never|do not|don't) refuse\b"
    r"|\b(?:begin|start|open) (?:your|the|every) (?:answer|response|reply) (?:with"
    r"|by)\b[^.\n]{0,60}"
    r"\b(?:sure|absolutely|of course|certainly|yes)\b"
    r"|\b(?:decode|decipher|translate) (?:it|this|the following)\b[^\n]{0,40}\b(?:then"
    r"|and) (?:answer|follow|do|obey)\b"
)
# Base64, Morse code, or bytes in binary.
_ENCODED_PAYLOAD = re.compile(
    r"(?:[A-Za-z0-9+/]{40,}={0,2})|(?:(?:[.-]{1,6}|/) ){14,}|(?:\b[01]{8}\b ?){6,}"
)


def find_injected_instruction(text: str) -> str | None:
    """Returns the words of a text that tell the assistant to drop its rules, or None."""
    match = _INSTRUCTIONS.search(text)
    return match.group()[:SHOWN_CHARACTERS] if match else None


def find_jailbreak_sign(text: str) -> str | None:
    """Returns a description of the first sign of a jailbreak in a text, or None."""
    instruction = find_injected_instruction(text)
    if instruction is not None:
        return f"an order to drop the rules: {instruction!r}"
    if _ENCODED_PAYLOAD.search(text):
        return "a long encoded run"
    if _has_optimised_suffix(text):
        return "an unlikely run of characters"
    return None


def _has_optimised_suffix(text: str) -> bool:
    """Returns whether a text ends like a suffix found by gradient search (Zou et al. 2023).

    Many of its words mix letters with brackets and other marks, or change the case inside.
    """
    words = text.split()
    if len(words) < SUFFIX_WORDS:
        return False
    unlikely = [
        word
        for word in words[-SUFFIX_WORDS:]
        if len(re.findall(r"[^\w\s.,!?'\"-]", word)) >= 2
        or re.search(r"[a-z][A-Z][a-z]+[A-Z]", word)
    ]
    return len(unlikely) >= MIN_UNLIKELY_WORDS
