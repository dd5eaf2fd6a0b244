"""A model with a fixed prefix: the HHH prompt of Askell et al. 2021 (2112.00861) in our own words, a file, a system
text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from truing.core.errors import PlanError, did_you_mean
from truing.core.lineage import digest
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sampling

BUILT_IN = ("hhh", "hhh-long")


def load_prefix(name: str) -> tuple[Message, ...]:
    """The messages of a prefix: `hhh` (14 conversations, about 600 words), `hhh-long` (about 4,600), or a file.

    A ``.json`` file holds OpenAI messages, one list or a list of conversations; any other file is a system message.
    """
    if name in BUILT_IN:
        text = (files("truing") / "resources" / "prompts" / f"{name}.json").read_text(
            encoding="utf-8"
        )
        return _messages(name, text)
    path = Path(name).expanduser()
    if not path.is_file():
        raise PlanError(
            f"prompted:{name}: no built-in prefix and no such file{did_you_mean(name, BUILT_IN)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as text: {error}") from error
    if not text.strip():
        raise PlanError(f"{path}: is empty")
    if path.suffix == ".json":
        return _messages(str(path), text)
    return (Message("system", text.strip()),)


def _messages(path: str, text: str) -> tuple[Message, ...]:
    try:
        rows: Any = msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        raise PlanError(f"{path}: {error}") from error
    flat = [m for one in rows for m in one] if rows and isinstance(rows[0], list) else rows
    if not isinstance(flat, list) or not flat:
        raise PlanError(f"{path}: expected a list of messages, or a list of conversations")
    try:
        made = Conversation.from_openai(flat).messages
    except ValueError as error:
        raise PlanError(f"{path}: {error}") from error
    late = [at for at, m in enumerate(made) if m.role == "system" and at > 0]
    if late:
        raise PlanError(
            f"{path}: messages[{late[0]}]: a system message stands only at the beginning"
        )
    if made[-1].role == "user":
        raise PlanError(f"{path}: the last message is a user's; a prefix ends with an answer")
    return made


class Prompted:
    """Puts a prefix before every conversation. A system message of the conversation is joined to that of the prefix.

    The prefix is one tuple of messages, the same object for every row: a local model reads it once and keeps its
    keys and values; over HTTP the provider's own prefix cache sees equal beginnings.
    """

    def __init__(self, model: Model, prefix: Sequence[Message], name: str) -> None:
        self.model = model
        self.prefix = tuple(prefix)
        self.name = name
        below = model.lineage
        self.lineage = msgspec.structs.replace(
            below, name=name, hash=digest("prompted", below.hash, msgspec.json.encode(self.prefix))
        )

    def wrap(self, conversation: Conversation) -> Conversation:
        """The conversation as the model below sees it."""
        system = [m.content for m in self.prefix[:1] if m.role == "system"]
        turns = self.prefix[len(system) :]
        rest = conversation.messages
        if rest and rest[0].role == "system":
            system.append(rest[0].content)
            rest = rest[1:]
        head = (Message("system", "\n\n".join(system)),) if system else ()
        return Conversation((*head, *turns, *rest))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """The answers of the model below to the wrapped conversation."""
        return await self.model.generate(self.wrap(conversation), sampling)

    async def close(self) -> None:
        """Closes the model below."""
        close = getattr(self.model, "close", None)
        if close is not None:
            await close()


class _Streams(Prompted):
    """A prompted model that streams, because the one below does."""

    def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields text as it comes."""
        below = self.model
        assert isinstance(below, StreamingModel)
        return below.stream(self.wrap(conversation), sampling)


class _Scored(Prompted):
    """A prompted model that gives log-probabilities, because the one below does."""

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """Of continuations after the wrapped conversation; plain text is taken as it stands, without the prefix."""
        below = self.model
        assert isinstance(below, LogprobModel)
        return await below.logprobs(
            self.wrap(prefix) if isinstance(prefix, Conversation) else prefix, continuations
        )


class _Both(_Streams, _Scored):
    """Streams and scores."""


def prompted(
    model: Model, prefix: str | Sequence[Message] | None = "hhh", *, system: str | None = None
) -> Prompted:
    """`model` with a prefix before every conversation: a built-in name, a file, or messages; `system` = a plain text.

    With both, the system text comes first.
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
    can = isinstance(model, StreamingModel), isinstance(model, LogprobModel)
    kind = {
        (False, False): Prompted,
        (True, False): _Streams,
        (False, True): _Scored,
        (True, True): _Both,
    }[can]
    return kind(model, turns, f"prompted:{label},of=({model.name})")
