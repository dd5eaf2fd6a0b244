"""Tone: a policy in a few words and checkable rules, a rewrite by the LLM, a mend by rule, and a judge that measures it.

    truing:
      tone:
        policy: Warm, plain and calm, in at most three sentences.
        avoid: [dude, "no worries"]        # words and phrases
        exclamation_marks: 0               # at most so many
        emoji: false
        capitals: false                    # WORDS THAT SHOUT
        max_words: 80

`tone:DIR` is the judge of a folder's policy, by the rules alone, so that it may measure what the LLM rewrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError, did_you_mean
from truing.core.lineage import digest
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.specs.resolve import Args

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f]")
_SHOUT = re.compile(r"\b[A-Z]{4,}\b(?:\W+\b[A-Z]{2,}\b)*")
_RUDE = (
    "idiot",
    "stupid",
    "dumb",
    "shut up",
    "whatever",
    "moron",
    "loser",
    "obviously",
    "as i already said",
    "not my problem",
    "who cares",
    "calm down",
)
_KEYS = (
    "policy",
    "avoid",
    "exclamation_marks",
    "emoji",
    "capitals",
    "max_words",
    "rudeness",
    "rewrites",
)


class Policy(Struct, frozen=True, kw_only=True):
    """What an answer must keep to. `text` is for the LLM that rewrites; the rest is checked."""

    text: str = "Polite, calm and plain."
    avoid: tuple[str, ...] = ()
    exclamation_marks: int | None = None
    emoji: bool = True
    capitals: bool = True
    max_words: int | None = None
    rudeness: bool = False
    rewrites: int = 1

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Policy:
        """From ``truing: tone:``; PlanError for keys that are none of its."""
        wrong = [
            f"truing.tone: unknown key {k!r}{did_you_mean(k, _KEYS)}"
            for k in settings
            if k not in _KEYS
        ]
        if wrong:
            raise PlanError(*wrong)
        most = settings.get("exclamation_marks")
        words = settings.get("max_words")
        return cls(
            text=str(settings.get("policy") or cls.__struct_defaults__[0]),
            avoid=tuple(map(str, settings.get("avoid") or ())),
            exclamation_marks=int(most) if most is not None else None,
            emoji=bool(settings.get("emoji", True)),
            capitals=bool(settings.get("capitals", True)),
            max_words=int(words) if words is not None else None,
            rudeness=bool(settings.get("rudeness", False)),
            rewrites=int(settings.get("rewrites", 1)),
        )

    def faults(self, text: str) -> list[str]:
        """What is off tone; empty = on tone."""
        found = [f"says {word!r}" for word in self.avoid if _said(word, text)]
        if not self.rudeness:
            found += [f"is rude ({word!r})" for word in _RUDE if _said(word, text)]
        if self.exclamation_marks is not None and text.count("!") > self.exclamation_marks:
            found.append(f"has {text.count('!')} exclamation marks")
        if not self.emoji and _EMOJI.search(text):
            found.append("has emoji")
        if not self.capitals and _SHOUT.search(text):
            found.append("shouts in capitals")
        if self.max_words is not None and len(text.split()) > self.max_words:
            found.append(f"has more than {self.max_words} words")
        return found

    def prompt(self, text: str, faults: list[str]) -> str:
        """What the LLM is asked."""
        return (
            f"Rewrite the answer below so that it keeps to this tone: {self.text} Keep what it says and its facts. "
            f"What is wrong with it now: {'; '.join(faults)}. Give only the rewritten answer.\n\nAnswer: {text}\n\nRewritten:"
        )

    def keeps(self, text: str, made: str) -> bool:
        """Whether a rewritten text still says what the text said, as far as words show it: no number that was not there, none
        lost, and at least a third of its longer words from the text. A small LLM often writes something else."""
        if _numbers(text) != _numbers(made):
            return False
        words, own = _long_words(made), _long_words(text)
        return not words or not own or len(words & own) >= len(words) / 3

    def mend(self, text: str) -> str:
        """The text with what a rule can mend: marks, emoji, capitals, whole sentences beyond the length, avoided words'
        sentences. Empty where nothing is left."""
        if not self.emoji:
            text = _EMOJI.sub("", text)
        if self.exclamation_marks is not None and text.count("!") > self.exclamation_marks:
            text = re.sub(r"!+", ".", text)
        if not self.capitals:
            text = _SHOUT.sub(
                lambda m: m.group().capitalize() if m.start() == 0 else m.group().lower(), text
            )
        kept: list[str] = []
        for sentence in re.split(r"(?<=[.?!])\s+", text.strip()):
            bad = any(_said(w, sentence) for w in (*self.avoid, *(() if self.rudeness else _RUDE)))
            long = (
                self.max_words is not None
                and len(" ".join([*kept, sentence]).split()) > self.max_words
            )
            if not bad and not long:
                kept.append(sentence)
        return re.sub(r"[^\S\n]{2,}", " ", " ".join(kept)).strip()


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,:]\d+)*", text))


def _long_words(text: str) -> set[str]:
    return {
        w[:6] for w in re.findall(r"[^\W\d_]{4,}", text.lower())
    }  # by their beginnings: open, opens, opening


def _said(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


class ToneJudge:
    """Is the answer on tone? By the policy's rules; an answer that says nothing is unscored."""

    question = "on_tone"

    def __init__(self, policy: Policy, name: str) -> None:
        self.policy = policy
        self.name = name
        self.lineage = Lineage(name=name, hash=digest("tone", name, repr(policy)))

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """The faults stand in the rationale."""
        made: dict[str, Any] = {
            "sample_id": response.sample_id,
            "index": response.index,
            "judge": self.name,
            "question": self.question,
        }
        if not response.text.strip():
            return Judgement(**made, failure=Failure("judge", "empty", "there is no text"))
        faults = self.policy.faults(response.text)
        return Judgement(**made, verdict=not faults, rationale="; ".join(faults) or None)


def build_judge(args: Args) -> ToneJudge:
    """`tone:DIR`: the tone policy of a rails folder."""
    from truing.rails.config.loader import RailsConfig

    if not args.name:
        raise args.fault("give the folder of the rails configuration: tone:DIR")
    settings = RailsConfig.load(args.name).truing.get("tone")
    if not isinstance(settings, Mapping):
        raise args.fault(f"{args.name}: there is no truing: tone: in its config.yml")
    return ToneJudge(Policy.of(settings), f"tone:{args.name.rstrip('/').rpartition('/')[2]}")
