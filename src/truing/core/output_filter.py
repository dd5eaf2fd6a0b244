"""The floor under everything: what no run may keep, show or hand to a rater, whatever the plan says.

Each model output passes `hold` before it reaches disk, screen or a person. Text that reads as sexual content about
minors is not kept: what stays is the category, and a keyed hash (HMAC-SHA-256) by which the same text can be recognised
on this installation and nowhere else. It is a word filter, made to err on the side of withholding; talk *about* abuse
(a refusal, a law, a hotline, prevention) passes. The key lies in `~/.config/truing/floor.key` (mode 0600), or comes
from the environment variable TRUING_FLOOR_KEY.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.types import Answer, Failure, Message, Response

WITHHELD_CATEGORY = "child_abuse"
"""The published harm category of what is withheld."""

_WINDOW = 30  # words between the two kinds of word
_WORD = re.compile(r"[^\W_]+")
_AGE = re.compile(
    r"\b(?:[1-9]|1[0-7])[\s-]*(?:years?|yrs?|yo|y/o|yr)\b[\s-]*(?:old|olds)?", re.IGNORECASE
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MINOR = _words(
    "child children childs kid kids minor minors underage underaged preteen preteens tween toddler toddlers infant "
    "infants baby babies schoolgirl schoolgirls schoolboy schoolboys loli lolita shota prepubescent pubescent "
    "preschooler kindergartner daughter stepdaughter niece grandchild"
)
_YOUNG = _words("girl girls boy boys teen teens teenager teenagers student pupil")
_YEARS = _words(
    "young little small tiny underage eleven twelve thirteen fourteen fifteen sixteen seventeen ten nine eight"
)
_EXPLICIT = _words(
    "nude nudes naked erotic erotica porn porno pornographic aroused arousal horny orgasm orgasms masturbate "
    "masturbating masturbation penis vagina vulva genitals genitalia breasts nipples nipple clitoris cock dick "
    "pussy anus anal oral blowjob intercourse penetrate penetrated penetration thrust thrusting moan moaned moaning "
    "undress undressed undressing seduce seduced seductive sensual lust lustful fondle fondled fondling grope "
    "groped groping sexy sexualized sexualised climax ejaculate ejaculated strip stripped lingerie kink fetish"
)
_WEAK = _words("sex sexual sexually intimate intimacy touching touched")
_ABOUT = _words(
    "abuse abused abuser abusive abusing exploit exploitation exploited illegal law laws legal crime crimes "
    "criminal report reporting reported protect protection protecting prevent prevention police hotline helpline "
    "victim victims survivor survivors trauma therapist counselor counsellor education educational consent safety "
    "safeguarding unacceptable wrong harmful cannot cant wont sorry inappropriate refuse refusal pediatrician "
    "paediatrician doctor puberty health"
)


class FilterMatch(Struct, frozen=True):
    """What is kept of a text that was withheld."""

    category: str
    digest: str

    @property
    def message(self) -> str:
        """One line for the record."""
        return f"withheld: {self.category} (sexual content about minors), hmac-sha256:{self.digest}"


@cache
def _key() -> bytes:
    given = os.environ.get("TRUING_FLOOR_KEY")
    if given:
        return hashlib.sha256(given.encode()).digest()
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "truing"
    path = folder / "floor.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(handle, "wb") as stream:
            stream.write(made := secrets.token_bytes(32))
        return made
    except OSError:
        return secrets.token_bytes(32)  # no home to keep it in: hashes of this process alone


def _near(words: list[str], left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether a word of each set stands within the window."""
    at_left = at_right = -_WINDOW - 1
    for at, word in enumerate(words):
        if word in left:
            at_left = at
        if word in right:
            at_right = at
        if abs(at_left - at_right) <= _WINDOW and min(at_left, at_right) >= 0:
            return True
    return False


def find_prohibited_content(text: str) -> FilterMatch | None:
    """What the floor withholds of a text, or none (nearly always)."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded)
    have = set(words)
    if have.isdisjoint(_EXPLICIT) and have.isdisjoint(_WEAK):
        return None
    aged = _AGE.sub(" underage ", folded)
    if aged is not folded:
        words = _WORD.findall(aged)
        have = set(words)
    minors = _MINOR | (_YOUNG if not have.isdisjoint(_YEARS) else frozenset())
    if have.isdisjoint(minors):
        return None
    about = not have.isdisjoint(_ABOUT)
    strong = _near(words, minors, _EXPLICIT)
    if (strong and not (about and len(words) < 400 and _mild(words))) or (
        not about and _near(words, minors, _WEAK)
    ):
        return FilterMatch(
            WITHHELD_CATEGORY,
            hmac.new(_key(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest(),
        )
    return None


def _mild(words: Iterable[str]) -> bool:
    """Whether talk about abuse names few explicit words: at most one in forty and three in all."""
    listed = list(words)
    explicit = sum(w in _EXPLICIT for w in listed)
    return explicit <= min(3, 1 + len(listed) // 40)


def _all_text(message: Message) -> str:
    if not message.tool_calls:
        return message.content
    return "\n".join([message.content, *(c.arguments for c in message.tool_calls)])


def filter_answer(answer: Answer) -> Answer:
    """The answer as it may be kept: itself, or what is left when the floor withholds it."""
    hit = find_prohibited_content(_all_text(answer.message))
    if hit is None:
        return answer
    return Answer(
        message=Message("assistant", ""),
        finish_reason="content_filter",
        usage=answer.usage,
        failure=Failure("floor", "withheld", hit.message),
    )


def filter_response(response: Response) -> Response:
    """The same for a response that came with a data set."""
    hit = find_prohibited_content(_all_text(response.message))
    if hit is None:
        return response
    return msgspec.structs.replace(
        response,
        message=Message("assistant", ""),
        finish_reason="content_filter",
        logprobs=None,
        rulings=(),
        failure=Failure("floor", "withheld", hit.message),
    )


def filter_text(text: str | None) -> str | None:
    """A free text (a judge's rationale, a rail's evidence), or the line that stands in its place."""
    if not text:
        return text
    hit = find_prohibited_content(text)
    return text if hit is None else hit.message
