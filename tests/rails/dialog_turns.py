"""A model with a list of replies and turns on small configurations, for tests of dialog actions."""

from __future__ import annotations

from typing import Any

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.runtime.turn_context import TurnContext


class ReplyListModel:
    """Gives its replies one after another, and keeps the conversations and samplings it saw."""

    name = "reply list"
    lineage = Lineage(name="reply list")

    def __init__(self, *replies: str | Answer) -> None:
        self.replies = list(replies)
        self.conversations: list[Conversation] = []
        self.samplings: list[Sampling] = []

    @property
    def prompts(self) -> list[str]:
        """The last message of each call."""
        return [conversation.last.content for conversation in self.conversations]

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.conversations.append(conversation)
        self.samplings.append(sampling)
        reply = self.replies.pop(0)
        return (reply if isinstance(reply, Answer) else Answer.of(reply),)


def make_runtime(model: Any, yaml: str = "models: []\n", colang: str = "", **parts: Any) -> Runtime:
    """Returns the runtime of a configuration, with the encoder that needs no weights."""
    config = RailsConfig.from_text(yaml, colang)
    return build_runtime(config, model, RuntimeParts(encoder=LexicalEncoder(), **parts))


def make_turn(
    model: Any, yaml: str = "models: []\n", colang: str = "", **fields: Any
) -> TurnContext:
    """Returns a turn without any events."""
    runtime = make_runtime(model, yaml, colang)
    state = ConversationState(runtime.program, runtime.config)
    return TurnContext(services=runtime.services, state=state, **fields)
