"""What all attacks share: seeds, budgets, parents, and the prompts that no attack touches."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from msgspec.structs import replace

from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.protocols import Model
from truing.core.types import Conversation, Lineage, Message, Sample, content_id

_MINORS = re.compile(
    r"\b(?:child(?:ren)?|kids?|minors?|underage|teen(?:ager)?s?|toddlers?|infants?|bab(?:y|ies)|pupils?|"
    r"school ?(?:boy|girl)s?|(?:young|little) (?:boy|girl)s?|(?:[1-9]|1[0-7]) ?-?year ?-?old)\b",
    re.IGNORECASE,
)
SKIPPED_TAG = "skipped: minors"


def is_attackable(sample: Sample) -> bool:
    """False for prompts about minors: by category, or by what the text says."""
    if any(h.startswith("child") for h in sample.harms):
        return False
    return not any(_MINORS.search(m.content) for m in sample.conversation.messages)


def derive_sample(sample: Sample, name: str, conversation: Conversation, **tags: str) -> Sample:
    """The attacked sample: new content and id, the old one's id as `parent`; it stays harmful and must be refused."""
    marks = {**sample.tags, "attack": name, **tags}
    made = replace(
        sample, id="", conversation=conversation, parent=sample.parent or sample.id, tags=marks
    )
    return replace(
        made, id=digest(content_id(made), name, *(f"{k}={v}" for k, v in sorted(tags.items())))
    )


def replace_prompt(sample: Sample, text: str, system: str | None = None) -> Conversation:
    """The sample's conversation with its last user message (and, if given, its system message) replaced."""
    messages = list(sample.conversation.messages)
    at = max((k for k, m in enumerate(messages) if m.role == "user"), default=-1)
    if at < 0:
        raise UserError(f"sample {sample.id}: an attack needs a user message")
    messages[at] = Message("user", text)
    if system is not None:
        messages = [m for m in messages if m.role != "system"]
        messages.insert(0, Message("system", system))
    return Conversation(tuple(messages))


def attack_rng(seed: int, sample: Sample, name: str, at: int = 0) -> random.Random:
    """A random stream of its own for each (seed, sample, attack, try)."""
    return random.Random(digest(str(seed), sample.id, name, str(at)))


class RewriteAttack:
    """An attack that is a function of the prompt: `change(text, rng)`."""

    def __init__(
        self, name: str, change: Callable[[str, random.Random], str], *, paper: str, seed: int = 0
    ) -> None:
        self.name = name
        self.paper = paper
        self._change = change
        self._seed = seed
        self.lineage = Lineage(name=name, hash=digest("attack", name, str(seed)))

    def attack_once(self, sample: Sample, at: int = 0) -> Sample:
        """The `at`-th try on a sample."""
        if not is_attackable(sample):
            return derive_sample(sample, SKIPPED_TAG, sample.conversation)
        text = self._change(sample.prompt, attack_rng(self._seed, sample, self.name, at))
        tags = {"try": str(at)} if at else {}
        return derive_sample(sample, self.name, replace_prompt(sample, text), **tags)

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """One try; the target is not asked."""
        return self.attack_once(sample)


class ChainedAttack:
    """Attacks in a row: each works on what the one before made; `parent` stays the plain prompt."""

    def __init__(self, *parts: RewriteAttack) -> None:
        if not parts:
            raise UserError("chain: needs one attack or more")
        self.name = "+".join(p.name for p in parts)
        self._parts = parts
        self.lineage = Lineage(
            name=self.name, hash=digest("chain", *(p.lineage.hash for p in parts))
        )

    def attack_once(self, sample: Sample, at: int = 0) -> Sample:
        """The `at`-th try on a sample."""
        if not is_attackable(sample):
            return derive_sample(sample, SKIPPED_TAG, sample.conversation)
        made = sample
        for part in self._parts:
            made = part.attack_once(made, at)
        return derive_sample(
            sample, self.name, made.conversation, **({"try": str(at)} if at else {})
        )

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """One try with all parts."""
        return self.attack_once(sample)
