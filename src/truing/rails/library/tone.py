"""Tone: a policy with checkable rules, fixes by rule, and a judge that measures it.

    truing:
      tone:
        policy: Warm, plain and calm, in at most three sentences.
        avoid: [dude, "no worries"]        # words and phrases
        exclamation_marks: 0               # at most so many
        emoji: false
        capitals: false                    # WORDS THAT SHOUT
        max_words: 80

`tone:DIR` is the judge of a folder's policy. It uses the rules alone, no model, so that it may
measure what the LLM rewrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.core.struct_fields import read_struct_fields
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.rails.config.loader import RailsConfig
from truing.specs.resolve import Args

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f]")
# A word of four capitals or more, and the shorter ones after it. Three may be an abbreviation.
_SHOUTING = re.compile(r"\b[A-Z]{4,}\b(?:\W+\b[A-Z]{2,}\b)*")
_RUDE_PHRASES = (
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


class TonePolicy(Struct, frozen=True, kw_only=True):
    """The rules for the tone of an answer.

    `policy` is for the LLM that rewrites; the others are checked.
    """

    policy: str = "Polite, calm and plain."
    avoid: tuple[str, ...] = ()
    exclamation_marks: int | None = None
    emoji: bool = True
    capitals: bool = True
    max_words: int | None = None
    rudeness: bool = False
    rewrites: int = 1

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TonePolicy:
        """Returns the policy of ``truing: tone:``. Raises PlanError with all faults."""
        faults: list[str] = []
        values = read_struct_fields(cls, settings, "truing.tone", faults)
        if faults:
            raise PlanError(*faults)
        return cls(**values)

    def violations(self, text: str) -> list[str]:
        """Returns the rules that a text breaks, described; empty for a text that is on tone."""
        violations = [f"says {phrase!r}" for phrase in self.avoid if _contains(text, phrase)]
        if not self.rudeness:
            rude = (phrase for phrase in _RUDE_PHRASES if _contains(text, phrase))
            violations += [f"is rude ({phrase!r})" for phrase in rude]
        if self._has_too_many_exclamation_marks(text):
            violations.append(f"has {text.count('!')} exclamation marks")
        if not self.emoji and _EMOJI.search(text):
            violations.append("has emoji")
        if not self.capitals and _SHOUTING.search(text):
            violations.append("shouts in capitals")
        if self.max_words is not None and len(text.split()) > self.max_words:
            violations.append(f"has more than {self.max_words} words")
        return violations

    def _has_too_many_exclamation_marks(self, text: str) -> bool:
        return self.exclamation_marks is not None and text.count("!") > self.exclamation_marks

    def rewrite_prompt(self, text: str, violations: list[str]) -> str:
        """Returns the prompt that asks the LLM for a rewrite."""
        return (
            f"Rewrite the answer below so that it keeps to this tone: {self.policy} Keep what it "
            f"says "
            f"and its facts. What is wrong with it now: {'; '.join(violations)}. Give only the "
            f"rewritten answer.\n\nAnswer: {text}\n\nRewritten:"
        )

    def preserves_content(self, text: str, rewrite: str) -> bool:
        """Returns whether a rewrite still says what the text said, as far as its words show it.

        It must have the same numbers, and at least a third of its longer words must be from the
        text. Small LLMs often write something else.
        """
        if _numbers(text) != _numbers(rewrite):
            return False
        new_words, old_words = _long_words(rewrite), _long_words(text)
        if not new_words or not old_words:
            return True
        return len(new_words & old_words) >= len(new_words) / 3

    def fix_by_rules(self, text: str) -> str:
        """Returns the text with its marks, emoji and capitals fixed.

        Sentences with avoided words, and those beyond the allowed length, are left out; the result
        may be empty.
        """
        if not self.emoji:
            text = _EMOJI.sub("", text)
        if self._has_too_many_exclamation_marks(text):
            text = re.sub(r"!+", ".", text)
        if not self.capitals:
            text = _SHOUTING.sub(_to_lower_case, text)
        forbidden = self.avoid if self.rudeness else (*self.avoid, *_RUDE_PHRASES)
        sentences: list[str] = []
        for sentence in re.split(r"(?<=[.?!])\s+", text.strip()):
            if any(_contains(sentence, phrase) for phrase in forbidden):
                continue
            words = " ".join([*sentences, sentence]).split()
            if self.max_words is None or len(words) <= self.max_words:
                sentences.append(sentence)
        # Removed emoji leave double spaces behind; line breaks stay.
        return re.sub(r"[^\S\n]{2,}", " ", " ".join(sentences)).strip()


def _to_lower_case(match: re.Match[str]) -> str:
    is_text_start = match.start() == 0
    return match.group().capitalize() if is_text_start else match.group().lower()


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,:]\d+)*", text))


def _long_words(text: str) -> set[str]:
    """Returns the first six letters of words of four or more, as a crude stem."""
    return {word[:6] for word in re.findall(r"[^\W\d_]{4,}", text.lower())}


def _contains(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


class ToneJudge:
    """Judges by the policy's rules whether an answer is on tone; an empty answer is unscored."""

    question = "on_tone"

    def __init__(self, policy: TonePolicy, name: str) -> None:
        self.policy = policy
        self.name = name
        # The hash must stay the one of earlier versions, in which the class was called Policy.
        policy_repr = repr(policy).replace("TonePolicy(policy=", "Policy(text=", 1)
        self.lineage = Lineage(name=name, hash=digest("tone", name, policy_repr))

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Returns the judgement; its rationale lists the violations."""
        fields: dict[str, Any] = {
            "sample_id": response.sample_id,
            "index": response.index,
            "judge": self.name,
            "question": self.question,
        }
        if not response.text.strip():
            return Judgement(**fields, failure=Failure("judge", "empty", "there is no text"))
        violations = self.policy.violations(response.text)
        rationale = "; ".join(violations) or None
        return Judgement(**fields, verdict=not violations, rationale=rationale)


def build_judge(args: Args) -> ToneJudge:
    """Builds `tone:DIR`, the judge of the tone policy of a rails folder."""
    if not args.name:
        raise args.fault("give the folder of the rails configuration: tone:DIR")
    settings = RailsConfig.load(args.name).truing.get("tone")
    if not isinstance(settings, Mapping):
        raise args.fault(f"{args.name}: there is no truing: tone: in its config.yml")
    folder_name = args.name.rstrip("/").rpartition("/")[2]
    return ToneJudge(TonePolicy.from_settings(settings), f"tone:{folder_name}")
