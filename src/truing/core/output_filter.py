"""A filter that withholds sexual content about minors from everything that is stored or displayed.

Each model output passes `filter_answer` (or `filter_response`, `filter_text`) before it reaches
disk, the screen or a human rater, whatever the plan says. Of a matching text only the category and
a keyed hash (HMAC-SHA-256) are kept: the same text can be recognised on this installation and
nowhere else.

The filter works on words and prefers a false alarm to a miss; text *about* abuse (a refusal, a law,
a help line, prevention) passes.

Names in stored data: version 0.1 called this filter the "floor". Records therefore have
`Failure(stage="floor", kind="withheld")`, and the hash key comes from the environment variable
TRUING_FLOOR_KEY or the file `~/.config/truing/floor.key` (mode 0600). These names stay, so that old
run folders can be read and old hashes compared.
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
from msgspec import UNSET, Struct

from truing.core.types import Answer, Failure, Message, Response

WITHHELD_CATEGORY = "child_abuse"
"""The published harm category of what is withheld."""

_MAX_DISTANCE = 30  # in words, between a word for a minor and a sexual word
_LONG_TEXT_WORDS = 400  # from this length on, words of prevention do not excuse explicit ones
_WORD = re.compile(r"[^\W_]+")
_AGE = re.compile(
    r"\b(?:[1-9]|1[0-7])[\s-]*(?:years?|yrs?|yo|y/o|yr)\b[\s-]*(?:old|olds)?", re.IGNORECASE
)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that name a minor.
_MINOR_WORDS = _word_set(
    "child children childs kid kids minor minors underage underaged preteen preteens tween "
    "toddler toddlers infant infants baby babies schoolgirl schoolgirls schoolboy schoolboys loli "
    "lolita shota prepubescent pubescent preschooler kindergartner daughter stepdaughter niece "
    "grandchild"
)

# Words that name a minor only next to a word of age ("young girl", "twelve").
_AMBIGUOUS_MINOR_WORDS = _word_set(
    "girl girls boy boys teen teens teenager teenagers student pupil"
)

_AGE_WORDS = _word_set(
    "young little small tiny underage eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "ten nine eight"
)

_EXPLICIT_WORDS = _word_set(
    "nude nudes naked erotic erotica porn porno pornographic aroused arousal horny orgasm orgasms "
    "masturbate masturbating masturbation penis vagina vulva genitals genitalia breasts nipples "
    "nipple clitoris cock dick pussy anus anal oral blowjob intercourse penetrate penetrated "
    "penetration thrust thrusting moan moaned moaning undress undressed undressing seduce seduced "
    "seductive sensual lust lustful fondle fondled fondling grope groped groping sexy sexualized "
    "sexualised climax ejaculate ejaculated strip stripped lingerie kink fetish"
)

# Words that are sexual only in some contexts.
_WEAK_SEXUAL_WORDS = _word_set("sex sexual sexually intimate intimacy touching touched")

# Words of texts about abuse: refusals, laws, help lines, prevention, medicine.
_PREVENTION_WORDS = _word_set(
    "abuse abused abuser abusive abusing exploit exploitation exploited illegal law laws legal "
    "crime crimes criminal report reporting reported protect protection protecting prevent "
    "prevention police hotline helpline victim victims survivor survivors trauma therapist "
    "counselor counsellor education educational consent safety safeguarding unacceptable wrong "
    "harmful cannot cant wont sorry inappropriate refuse refusal pediatrician paediatrician "
    "doctor puberty health"
)


class FilterMatch(Struct, frozen=True):
    """What is kept of a withheld text: its category and the keyed hash of the text."""

    category: str
    digest: str

    @property
    def message(self) -> str:
        """One line for the stored record."""
        return f"withheld: {self.category} (sexual content about minors), hmac-sha256:{self.digest}"


def find_prohibited_content(text: str) -> FilterMatch | None:
    """Returns the match if the text must be withheld, else None (the usual case)."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(folded)
    vocabulary = set(words)
    # Most texts end here: this test costs one pass over the words.
    if vocabulary.isdisjoint(_EXPLICIT_WORDS) and vocabulary.isdisjoint(_WEAK_SEXUAL_WORDS):
        return None

    # "12 years old" counts as a word for a minor.
    age_marked = _AGE.sub(" underage ", folded)
    if age_marked is not folded:
        words = _WORD.findall(age_marked)
        vocabulary = set(words)
    minor_words = _MINOR_WORDS
    if not vocabulary.isdisjoint(_AGE_WORDS):
        minor_words = minor_words | _AMBIGUOUS_MINOR_WORDS
    if vocabulary.isdisjoint(minor_words):
        return None

    about_prevention = not vocabulary.isdisjoint(_PREVENTION_WORDS)
    explicit = _occur_nearby(words, minor_words, _EXPLICIT_WORDS)
    if explicit and about_prevention and len(words) < _LONG_TEXT_WORDS:
        explicit = not _has_few_explicit_words(words)
    suggestive = not about_prevention and _occur_nearby(words, minor_words, _WEAK_SEXUAL_WORDS)
    if explicit or suggestive:
        return FilterMatch(WITHHELD_CATEGORY, _keyed_hash(text))
    return None


def filter_answer(answer: Answer) -> Answer:
    """Returns the answer itself, or an empty one with a failure if its content is withheld."""
    match = find_prohibited_content(_all_text(answer))
    if match is None:
        return answer
    return Answer(
        message=Message("assistant", ""),
        finish_reason="content_filter",
        usage=answer.usage,
        failure=withheld_failure(match),
    )


def filter_response(response: Response) -> Response:
    """Like `filter_answer`, for a recorded response of a data set."""
    match = find_prohibited_content(_all_text(response))
    if match is None:
        return response
    return msgspec.structs.replace(
        response,
        message=Message("assistant", ""),
        finish_reason="content_filter",
        logprobs=None,
        rulings=(),
        failure=withheld_failure(match),
        episode=UNSET,
    )


def filter_text(text: str | None) -> str | None:
    """Returns a free text (a rationale, evidence) itself, or the line that replaces it."""
    if not text:
        return text
    match = find_prohibited_content(text)
    return text if match is None else match.message


def withheld_failure(match: FilterMatch) -> Failure:
    """Returns the failure that is stored instead of a withheld text."""
    return Failure("floor", "withheld", match.message)


def _all_text(record: Answer | Response) -> str:
    message = record.message
    if not message.tool_calls and record.episode is UNSET:
        return message.content
    texts = [message.content, *(call.arguments for call in message.tool_calls)]
    for turn in record.episode.turns if record.episode is not UNSET else ():
        texts.append(turn.text)
        texts += [text for call in turn.calls for text in (call.arguments, call.result)]
    return "\n".join(texts)


def _occur_nearby(words: list[str], left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether a word of each set occurs within `_MAX_DISTANCE` words of the other."""
    last_left = last_right = -_MAX_DISTANCE - 1
    for position, word in enumerate(words):
        if word in left:
            last_left = position
        if word in right:
            last_right = position
        if abs(last_left - last_right) <= _MAX_DISTANCE and min(last_left, last_right) >= 0:
            return True
    return False


def _has_few_explicit_words(words: Iterable[str]) -> bool:
    """Whether at most one word in forty, and three in all, is explicit."""
    listed = list(words)
    explicit = sum(w in _EXPLICIT_WORDS for w in listed)
    return explicit <= min(3, 1 + len(listed) // 40)


def _keyed_hash(text: str) -> str:
    return hmac.new(_load_key(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


@cache
def _load_key() -> bytes:
    """Returns this installation's hash key; it is created at the first call."""
    from_environment = os.environ.get("TRUING_FLOOR_KEY")
    if from_environment:
        return hashlib.sha256(from_environment.encode()).digest()
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "truing"
    path = folder / "floor.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # O_EXCL: of two processes that start together, one creates the key, the other reads it.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        key = secrets.token_bytes(32)
        with os.fdopen(handle, "wb") as stream:
            stream.write(key)
        return key
    except OSError:
        # No writable home directory: the hashes are only comparable within this process.
        return secrets.token_bytes(32)
