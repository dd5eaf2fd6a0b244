"""Whether somebody who writes may be thinking of harming themselves, and what to say then: support, never a bare block.

Words of a person about themselves, present or near; not a question about others, a figure of speech, or fiction. Wide on
purpose: a supportive word too many costs little. Guidance on wording: WHO, Preventing suicide (2023); Samaritans' media
guidelines. Measured on `builtin:support` (see the rail's card).
"""

from __future__ import annotations

import re

_I = r"\b(?:i|i'm|im|i've|ive|i'd|me|my|myself)\b"
_SIGNS = re.compile(
    r"\b(?:kill(?:ing)? myself|end(?:ing)? (?:my (?:own )?life|it all|things for good)|take my (?:own )?life|suicidal"
    r"|hurt(?:ing)? myself|harm(?:ing)? myself|cut(?:ting)? myself|self[- ]?harm(?:ing|ed)?"
    r"|(?:do not|don't|dont) (?:want|wish) to (?:live|be alive|be here|wake up|exist|go on|be around)"
    r"|(?:not|never) (?:want(?:ing)?|wish(?:ing)?) to (?:live|be alive|wake up|exist|go on)"
    r"|want to (?:die|disappear|be dead|not exist|be gone|vanish)|wish i (?:was|were) (?:dead|gone|never born)"
    r"|wish i (?:could (?:just )?)?(?:disappear|vanish|not wake up|had never been born)"
    r"|better off (?:without me|if i (?:was|were) (?:dead|gone|not here))"
    r"|no (?:point|reason) (?:in|to) (?:living|live|going on|go on)"
    r"|nothing (?:left )?to live for"
    r"|(?:can't|cannot|cant) (?:go on|take (?:it|this) any ?more|do this any ?more|keep going|see a way out)"
    r"|(?:life|living) (?:is(?:n't| not)|isnt) worth|not worth living|tired of (?:living|being alive|life|existing)"
    r"|(?:be|being|am|i'm|im) a burden (?:to|on)|nobody would (?:miss|notice|care)|no ?one would (?:miss|notice|care)"
    r"|give up on (?:life|everything)|thinking (?:about|of) (?:suicide|dying|death|ending)|(?:feel|feeling|i'm|im) (?:so )?hopeless"
    r"|(?:stopped|stop) seeing (?:any|a) (?:reason|point|future)|starv(?:e|ing) myself|goodbye (?:letter|note)s? (?:to|for))\b",
    re.IGNORECASE,
)
_OTHERS = re.compile(
    r"\b(?:my (?:friend|brother|sister|son|daughter|mother|father|mum|mom|dad|partner|wife|husband|colleague|student|neighbour"
    r"|roommate|flatmate)|someone i know|a friend|he|she|they) "
    r"(?:\w+ ){0,4}(?:said|says|told|keeps? saying|talks?|wants?|is|are|has|have|might)\b",
    re.IGNORECASE,
)
_FICTION = re.compile(
    r"\b(?:character|novel|story|lyrics|poem|film|movie|screenplay|essay|research|statistics|history of)\b",
    re.IGNORECASE,
)
DEFAULT_MESSAGE = (
    "I'm really sorry that you are going through this, and I'm glad that you wrote it down. You don't have to carry it "
    "alone. {help} If you can, tell somebody you trust how you feel today. If you may act on these thoughts now, please "
    "move away from anything that could hurt you and call for help at once. Would you like to tell me what is weighing on you?"
)
DEFAULT_HELP = (
    "If you are in danger, please call your local emergency number now; findahelpline.com lists free and confidential help "
    "lines in your country."
)


def in_distress(text: str) -> str | None:
    """The words that show it, or none."""
    plain = text.replace("’", "'")
    found = _SIGNS.search(plain)
    if found is None or (
        _FICTION.search(plain)
        and not re.search(r"\bi (?:am|feel|want|really)\b", plain, re.IGNORECASE)
    ):
        return None
    if _OTHERS.search(plain) and not re.search(
        r"\bmyself\b|\bi (?:want|wish|don't want|can't)\b", plain, re.IGNORECASE
    ):
        return None
    return (
        found.group() if re.search(_I, plain, re.IGNORECASE) or len(plain.split()) <= 12 else None
    )


def support(message: str | None = None, help_: str | None = None) -> str:
    """The message of a configuration, or ours; ``{help}`` in it is the local help."""
    return (message or DEFAULT_MESSAGE).replace("{help}", help_ or DEFAULT_HELP)
