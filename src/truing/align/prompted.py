"""A model with a fixed prefix before every conversation.

The built-in prefixes `hhh` and `hhh-long` are versions in our own words of the HHH prompt of Askell
et al. 2021 (arXiv:2112.00861).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import read_input_text
from truing.core.lineage import digest
from truing.core.protocols import (
    LogprobModel,
    Model,
    PrefixAware,
    StreamingModel,
    iterate_models,
)
from truing.core.types import Answer, Conversation, Message, Sampling

BUILT_IN = ("hhh", "hhh-long")


def load_prefix(name: str) -> tuple[Message, ...]:
    """Loads the messages of a prefix: a built-in one, or a file.

    `hhh` has 14 conversations with about 600 words, `hhh-long` about 4,600. A ``.json`` file holds
    OpenAI messages, in one list or a list of conversations; any other file is a system message.
    """
    if name in BUILT_IN:
        resource = files("truing") / "resources" / "prompts" / f"{name}.json"
        return _parse_messages(name, resource.read_text(encoding="utf-8"))
    path = Path(name).expanduser()
    if not path.is_file():
        suggestion = did_you_mean(name, BUILT_IN)
        raise PlanError(f"prompted:{name}: no built-in prefix and no such file{suggestion}")
    try:
        text = read_input_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as text: {error}") from error
    if not text.strip():
        raise PlanError(f"{path}: is empty")
    if path.suffix == ".json":
        return _parse_messages(str(path), text)
    return (Message("system", text.strip()),)


def _parse_messages(path: str, text: str) -> tuple[Message, ...]:
    try:
        rows: Any = msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        raise PlanError(f"{path}: {error}") from error
    if isinstance(rows, list) and rows and isinstance(rows[0], list):
        rows = [message for conversation in rows for message in conversation]
    if not isinstance(rows, list) or not rows:
        raise PlanError(f"{path}: expected a list of messages, or a list of conversations")
    try:
        messages = Conversation.from_openai(rows).messages
    except ValueError as error:
        raise PlanError(f"{path}: {error}") from error
    late = [i for i, message in enumerate(messages) if message.role == "system" and i > 0]
    if late:
        raise PlanError(f"{path}: messages[{late[0]}]: a system message must be the first")
    # Otherwise the conversation would have two user messages in a row, which templates refuse.
    if messages[-1].role == "user":
        raise PlanError(f"{path}: the last message is a user's; a prefix ends with an answer")
    return messages


class Prompted:
    """Puts a prefix before every conversation.

    A conversation's own system message is appended to that of the prefix. The prefix is the same
    tuple for every call, so that a local model computes its keys and values once, and a provider's
    prefix cache sees equal beginnings.
    """

    def __init__(self, model: Model, prefix: Sequence[Message], name: str) -> None:
        self.model = model
        self.prefix = tuple(prefix)
        self.name = name
        base = model.lineage
        lineage_hash = digest("prompted", base.hash, msgspec.json.encode(self.prefix))
        self.lineage = msgspec.structs.replace(base, name=name, hash=lineage_hash)
        for inner in iterate_models(model):
            if isinstance(inner, PrefixAware):
                # Rails inside would read the prefix as a client's text, in every conversation.
                inner.expect_prefix(self.prefix)

    def wrap(self, conversation: Conversation) -> Conversation:
        """Returns the conversation with the prefix."""
        system_texts = [m.content for m in self.prefix[:1] if m.role == "system"]
        prefix_turns = self.prefix[len(system_texts) :]
        turns = conversation.messages
        if turns and turns[0].role == "system":
            system_texts.append(turns[0].content)
            turns = turns[1:]
        # One system message: many chat templates refuse a second.
        system = (Message("system", "\n\n".join(system_texts)),) if system_texts else ()
        return Conversation((*system, *prefix_turns, *turns))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the base model's answers to the wrapped conversation."""
        return await self.model.generate(self.wrap(conversation), sampling)

    async def close(self) -> None:
        """Closes the base model."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()


# `isinstance(model, StreamingModel)` must be true exactly if the base model streams, and likewise
# for log-probabilities, so there is one class for each combination.


class _StreamingPrompted(Prompted):
    """A prompted model whose base model streams."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the base model's chunks of text."""
        assert isinstance(self.model, StreamingModel)
        return self.model.stream(self.wrap(conversation), sampling)


class _LogprobPrompted(Prompted):
    """A prompted model whose base model computes log-probabilities."""

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """Returns log-probabilities after the wrapped conversation; a `str` gets no prefix."""
        assert isinstance(self.model, LogprobModel)
        wrapped = self.wrap(prefix) if isinstance(prefix, Conversation) else prefix
        return await self.model.logprobs(wrapped, continuations)


class _StreamingLogprobPrompted(_StreamingPrompted, _LogprobPrompted):
    """A prompted model whose base model does both."""


def prompted(
    model: Model, prefix: str | Sequence[Message] | None = "hhh", *, system: str | None = None
) -> Prompted:
    """Returns `model` with a prefix before every conversation.

    `prefix` is the name of a built-in prefix, a file, or messages; `system` is a system text, which
    comes before the prefix.
    """
    turns: tuple[Message, ...] = ()
    label = "system"
    if isinstance(prefix, str):
        turns, label = load_prefix(prefix), prefix if prefix in BUILT_IN else Path(prefix).name
    elif prefix is not None:
        turns, label = tuple(prefix), "messages"
    if system:
        if turns and turns[0].role == "system":
            turns = (Message("system", f"{system}\n\n{turns[0].content}"), *turns[1:])
        else:
            turns = (Message("system", system), *turns)
    if not turns:
        raise PlanError("prompted: neither a prefix nor a system text")
    classes = {
        (False, False): Prompted,
        (True, False): _StreamingPrompted,
        (False, True): _LogprobPrompted,
        (True, True): _StreamingLogprobPrompted,
    }
    kind = classes[isinstance(model, StreamingModel), isinstance(model, LogprobModel)]
    return kind(model, turns, f"prompted:{label},of=({model.name})")
