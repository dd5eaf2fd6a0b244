"""Attacks that are functions of the prompt, chains of them, and helpers that all attacks use."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from msgspec.structs import replace

from truing.core.errors import UserError
from truing.core.ids import content_id
from truing.core.lineage import digest
from truing.core.protocols import Model
from truing.core.types import Conversation, Lineage, Message, Sample

# Broad: a false match costs one attacked prompt.
_MINORS = re.compile(
    r"\b(?:child(?:ren)?|kids?|minors?|underage|teen(?:ager)?s?|toddlers?|infants?|"
    r"bab(?:y|ies)|pupils?|school ?(?:boy|girl)s?|(?:young|little) (?:boy|girl)s?|"
    r"(?:[1-9]|1[0-7]) ?-?year ?-?old)\b",
    re.IGNORECASE,
)

SKIPPED_TAG = "skipped: minors"
"""The value of the tag `attack` on samples that no attack may change."""


def is_attackable(sample: Sample) -> bool:
    """Returns False for prompts about minors, by category or by their words."""
    if any(h.startswith("child") for h in sample.harms):
        return False
    return not any(_MINORS.search(m.content) for m in sample.conversation.messages)


def derive_sample(sample: Sample, name: str, conversation: Conversation, **tags: str) -> Sample:
    """Returns the attacked sample: new conversation and id, the original's id as `parent`.

    Categories and the expected behaviour stay: an attacked harmful request must still be refused.
    """
    attacked = replace(
        sample,
        id="",
        conversation=conversation,
        parent=sample.parent or sample.id,
        tags={**sample.tags, "attack": name, **tags},
    )
    # The content id ignores tags, but two tries may produce the same text.
    tag_texts = (f"{k}={v}" for k, v in sorted(tags.items()))
    return replace(attacked, id=digest(content_id(attacked), name, *tag_texts))


def replace_prompt(sample: Sample, text: str, system: str | None = None) -> Conversation:
    """Returns the sample's conversation with another last user message.

    With `system` the system message is replaced too.
    """
    # Only the last user message: earlier turns are context that the target has answered.
    messages = list(sample.conversation.messages)
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    if last < 0:
        raise UserError(f"sample {sample.id}: an attack needs a user message")
    messages[last] = Message("user", text)
    if system is not None:
        messages = [m for m in messages if m.role != "system"]
        messages.insert(0, Message("system", system))
    return Conversation(tuple(messages))


def attack_rng(seed: int, sample: Sample, name: str, attempt: int = 0) -> random.Random:
    """Returns the random generator for one attempt of an attack on a sample."""
    return random.Random(digest(str(seed), sample.id, name, str(attempt)))


class RewriteAttack:
    """An attack that changes the prompt by a function `change(text, rng)`."""

    def __init__(
        self, name: str, change: Callable[[str, random.Random], str], *, paper: str, seed: int = 0
    ) -> None:
        self.name = name
        self.paper = paper
        self._change = change
        self._seed = seed
        self.lineage = Lineage(name=name, hash=digest("attack", name, str(seed)))

    def attack_once(self, sample: Sample, attempt: int = 0) -> Sample:
        """Returns the attacked sample of an attempt; attempts differ by their random generator."""
        if not is_attackable(sample):
            return derive_sample(sample, SKIPPED_TAG, sample.conversation)
        rng = attack_rng(self._seed, sample, self.name, attempt)
        conversation = replace_prompt(sample, self._change(sample.prompt, rng))
        return derive_sample(sample, self.name, conversation, **_attempt_tags(attempt))

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """Returns the first attempt; the target is not queried."""
        return self.attack_once(sample)


class ChainedAttack:
    """Applies several attacks one after the other; `parent` stays the original sample."""

    def __init__(self, *parts: RewriteAttack) -> None:
        if not parts:
            raise UserError("chain: needs one attack or more")
        self.name = "+".join(p.name for p in parts)
        self._parts = parts
        self.lineage = Lineage(
            name=self.name, hash=digest("chain", *(p.lineage.hash for p in parts))
        )

    def attack_once(self, sample: Sample, attempt: int = 0) -> Sample:
        """Returns the attacked sample of an attempt."""
        if not is_attackable(sample):
            return derive_sample(sample, SKIPPED_TAG, sample.conversation)
        attacked = sample
        for part in self._parts:
            attacked = part.attack_once(attacked, attempt)
        return derive_sample(sample, self.name, attacked.conversation, **_attempt_tags(attempt))

    async def attack(self, sample: Sample, target: Model) -> Sample:
        """Returns the first attempt; the target is not queried."""
        return self.attack_once(sample)


def _attempt_tags(attempt: int) -> dict[str, str]:
    """Returns the tag of an attempt; the first has none."""
    return {"try": str(attempt)} if attempt else {}
