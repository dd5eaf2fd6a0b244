"""Conversations for the tests of local generation, and answers to several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Message, Sampling

SYSTEM = (
    "You are a patient helper who answers in one short sentence. You like cats, bicycles and rain."
)

ASKS = [
    Conversation.of("how do I repair a wheel?"),
    Conversation.of("the cat"),
    Conversation.of("the rain in the garden " * 6, system=SYSTEM),
    Conversation.of("a", system=SYSTEM),
    Conversation.of("numbers 0123456789", system=SYSTEM),
    Conversation.of("Is the mat true?", system=SYSTEM)
    .then(Message("assistant", "It is."))
    .then(Message("user", "and the cat?")),
    Conversation.of("what is a bicycle wheel", system=SYSTEM),
]


def answers(
    model: Model, asks: Sequence[Conversation], sampling: Sampling
) -> list[tuple[Answer, ...]]:
    async def run() -> list[tuple[Answer, ...]]:
        return list(await asyncio.gather(*(model.generate(ask, sampling) for ask in asks)))

    return asyncio.run(run())


def texts(model: Model, asks: Sequence[Conversation], sampling: Sampling) -> list[str]:
    return [a.text for made in answers(model, asks, sampling) for a in made]
