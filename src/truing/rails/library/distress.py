"""Detects by pattern whether a writer may be thinking of self-harm, and holds the supportive reply.

The patterns look for words of people about themselves, now or in the near future; not for questions
about others, figures of speech, or fiction. They are wide on purpose: a supportive message too many
costs little. Guidance on wording: WHO, Preventing suicide (2023); Samaritans' media guidelines.
Measured on `builtin:support` (see the rail's card in docs/rails-library.md).
"""

from __future__ import annotations

import re

_FIRST_PERSON = re.compile(r"\b(?:i|i'm|im|i've|ive|i'd|me|my|myself)\b", re.IGNORECASE)
_SIGNS = re.compile(
    r"\b(?:kill(?:ing)? myself|end(?:ing)? (?:my (?:own )?life|it all|things for good)"
    r"|take my (?:own )?life|suicidal"
    r"|hurt(?:ing)? myself|harm(?:ing)? myself|cut(?:ting)? myself|self[- ]?harm(?:ing|ed)?"
    r"|(?:do not|don't|dont) (?:want|wish) to (?:live|be alive|be here|wake up|exist|go on"
    r"|be around)"
    r"|(?:not|never) (?:want(?:ing)?|wish(?:ing)?) to (?:live|be alive|wake up|exist|go on)"
    r"|want to (?:die|disappear|be dead|not exist|be gone|vanish)|wish i (?:was|were) (?:dead|gone"
    r"|never born)"
    r"|wish i (?:could (?:just )?)?(?:disappear|vanish|not wake up|had never been born)"
    r"|better off (?:without me|if i (?:was|were) (?:dead|gone|not here))"
    r"|no (?:point|reason) (?:in|to) (?:living|live|going on|go on)"
    r"|nothing (?:left )?to live for"
    r"|(?:can't|cannot|cant) (?:go on|take (?:it|this) any ?more|do this any ?more|keep going"
    r"|see a way out)"
    r"|(?:life|living) (?:is(?:n't| not)|isnt) worth|not worth living|tired of (?:living"
    r"|being alive|life|existing)"
    r"|(?:be|being|am|i'm|im) a burden (?:to|on)|nobody would (?:miss|notice|care)"
    r"|no ?one would (?:miss|notice|care)"
    r"|give up on (?:life|everything)|thinking (?:about|of) (?:suicide|dying|death|ending)|(?:feel"
    r"|feeling|i'm|im) (?:so )?hopeless"
    r"|(?:stopped|stop) seeing (?:any|a) (?:reason|point|future)|starv(?:e|ing) myself"
    r"|goodbye (?:letter|note)s? (?:to|for))\b",
    re.IGNORECASE,
)
_ABOUT_OTHERS = re.compile(
    r"\b(?:my (?:friend|brother|sister|son|daughter|mother|father|mum|mom|dad|partner|wife|husband"
    r"|colleague|student|neighbour"
    r"|roommate|flatmate)|someone i know|a friend|he|she|they) "
    r"(?:\w+ ){0,4}(?:said|says|told|keeps? saying|talks?|wants?|is|are|has|have|might)\b",
    re.IGNORECASE,
)
_FICTION = re.compile(
    r"\b(?:character|novel|story|lyrics|poem|film|movie|screenplay|essay|research|statistics"
    r"|history of)\b",
    re.IGNORECASE,
)
# Words that make a text about the writer again, although it mentions fiction or another person.
_ABOUT_SELF_DESPITE_FICTION = re.compile(r"\bi (?:am|feel|want|really)\b", re.IGNORECASE)
_ABOUT_SELF_DESPITE_OTHERS = re.compile(
    r"\bmyself\b|\bi (?:want|wish|don't want|can't)\b", re.IGNORECASE
)
MAX_WORDS_WITHOUT_FIRST_PERSON = 12  # short texts often leave "I" out: "want to die"
DEFAULT_MESSAGE = (
    "I'm really sorry that you are going through this, and I'm glad that you wrote it down. You "
    "don't have to carry it "
    "alone. {help} If you can, tell somebody you trust how you feel today. If you may act on these "
    "thoughts now, please "
    "move away from anything that could hurt you and call for help at once. Would you like to tell "
    "me what is weighing on you?"
)
DEFAULT_HELP = (
    "If you are in danger, please call your local emergency number now; findahelpline.com lists "
    "free and confidential help "
    "lines in your country."
)


def find_distress_signs(text: str) -> str | None:
    """Returns the words of a text that are a sign of self-harm, or None."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    sign = _SIGNS.search(text)
    if sign is None:
        return None
    if _FICTION.search(text) and not _ABOUT_SELF_DESPITE_FICTION.search(text):
        return None
    if _ABOUT_OTHERS.search(text) and not _ABOUT_SELF_DESPITE_OTHERS.search(text):
        return None
    is_first_person = _FIRST_PERSON.search(text) is not None
    if is_first_person or len(text.split()) <= MAX_WORDS_WITHOUT_FIRST_PERSON:
        return sign.group()
    return None


def support_message(message: str | None = None, local_help: str | None = None) -> str:
    """Returns the supportive reply; ``{help}`` in `message` is replaced by the local help."""
    return (message or DEFAULT_MESSAGE).replace("{help}", local_help or DEFAULT_HELP)
