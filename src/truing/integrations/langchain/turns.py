"""A turn of LangChain's chat model behind rails: one `GuardedModel` for all turns, whose inner
model is the chat model of the turn that asks.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Tool, Usage
from truing.integrations.hook_rails import HookRails, UncheckedContent, session_of_its_own
from truing.integrations.langchain.messages import (
    TurnMessages,
    build_answer,
    read_calls,
    read_content,
)
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import blocked_answer
from truing.rails.runtime.decision_record import decision_record

MAX_REMEMBERED = 10_000  # tool calls, and answers, that went through the rails
_SHOWN_METADATA = (
    *("id", "model", "model_name", "model_provider", "system_fingerprint"),
    *("token_usage", "usage", "service_tier"),
)
# A run without callbacks: neither a stream of LangGraph nor `astream_events` shows its tokens.
_UNSEEN_RUN: dict[str, Any] = {"callbacks": [], "tags": ["nostream", "langsmith:nostream"]}


class ChatTurn:
    """One call of a chat model: its messages, the model with and without its tools."""

    def __init__(
        self,
        model: Any,
        bound_model: Any,
        messages: Sequence[Any],
        tools: tuple[Tool, ...],
        arguments: dict[str, Any],
        keeps: Callable[[Any], bool],
    ) -> None:
        self.model, self.bound_model, self.tools = model, bound_model, tools
        self.messages = TurnMessages(messages, keeps)
        self.arguments = arguments
        self.reply: Any = None  # the last message of the model with the tools of the turn
        self.error: Exception | None = None


class TurnModel:
    """The model inside the rails: asks the chat model of the turn that the sampling's seed names.

    Not by a context variable: rails run in tasks, and a generator's steps in whichever task reads
    it. Temperature and tokens are the chat model's own.
    """

    name = "langchain"
    lineage = Lineage(name="langchain")

    def __init__(self) -> None:
        self.turns: dict[int, ChatTurn] = {}

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns one answer; an exception of the chat model is a failure."""
        turn = self.turns.get(sampling.seed)
        if turn is None:
            return (Answer.failed("model", "no turn of a chat model is under way"),)
        try:
            reply = await self._model(turn, sampling).ainvoke(
                turn.messages.to_langchain(conversation), **self._arguments(turn, sampling)
            )
            answer = _read_reply(reply)
        except Exception as error:
            turn.error = error
            return (Answer.failed("model", f"{type(error).__name__}"),)
        if sampling.tools or not turn.tools:
            turn.reply = reply
        return (answer,)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text of one answer in chunks. Raises ConnectionError if the model fails."""
        turn = self.turns.get(sampling.seed)
        if turn is None:
            raise ConnectionError("no turn of a chat model is under way")
        try:
            async for chunk in self._model(turn, sampling).astream(
                turn.messages.to_langchain(conversation), **self._arguments(turn, sampling)
            ):
                if read_calls(chunk):
                    raise UncheckedContent("a stream without tools calls one")
                text = read_content(chunk.content, is_model=True)
                if text:
                    yield text
        except Exception as error:
            turn.error = error
            raise ConnectionError(type(error).__name__) from error

    def _model(self, turn: ChatTurn, sampling: Sampling) -> Any:
        # A rail that asks this model offers no tools.
        return turn.bound_model if sampling.tools or not turn.tools else turn.model

    def _arguments(self, turn: ChatTurn, sampling: Sampling) -> dict[str, Any]:
        stop = {"stop": list(sampling.stop)} if sampling.stop else {}
        is_turn = bool(sampling.tools) or not turn.tools
        return {**(turn.arguments if is_turn else {}), **stop, "config": dict(_UNSEEN_RUN)}


def _read_reply(reply: Any) -> Answer:
    message = Message("assistant", read_content(reply.content, is_model=True), read_calls(reply))
    used = getattr(reply, "usage_metadata", None) or {}
    usage = Usage(int(used.get("input_tokens", 0)), int(used.get("output_tokens", 0)))
    reason = str((reply.response_metadata or {}).get("finish_reason") or "stop")
    if message.tool_calls:
        reason = "tool_calls"
    return Answer(message=message, finish_reason=reason, usage=usage)


class ChatRails(HookRails):
    """The rails around LangChain's chat models. `keep_reasoning` passes a model's reasoning on,
    which no rail reads: some providers need it back after a tool call.
    """

    def __init__(
        self, config: RailsConfig | str | Path, *, keep_reasoning: bool = False, **arguments: Any
    ) -> None:
        self.turn_model = TurnModel()
        super().__init__(config, model=self.turn_model, passes_messages=True, **arguments)
        self.keep_reasoning = keep_reasoning
        # What went through the rails, by digest: calls that need no second check, answers.
        self._passed: OrderedDict[bytes, None] = OrderedDict()

    async def answer(self, turn: ChatTurn, session: str) -> Any:
        """Returns the answer to a turn as an AIMessage, or the refusal of a rail in its place.

        Raises what the chat model raised, if it failed.
        """
        seed = self._start(turn)
        try:
            answer = await self.guarded.answer(
                turn.messages.conversation,
                Sampling(seed=seed, tools=turn.tools),
                session=session_of_its_own(session),
                explicit_fields={"seed"},
            )
        finally:
            del self.turn_model.turns[seed]
        return self._finish(turn, answer, session)

    async def stream(self, turn: ChatTurn, session: str) -> AsyncIterator[Any]:
        """Yields texts that the rails have passed, and last the AIMessage as `answer` returns it.

        Whether text is held until the end or sent in checked chunks, the configuration says.
        """
        seed = self._start(turn)
        try:
            async for part in self.guarded.stream_with_answer(
                turn.messages.conversation,
                Sampling(seed=seed, tools=turn.tools),
                session=session_of_its_own(session),
                explicit_fields={"seed"},
            ):
                yield self._finish(turn, part, session) if isinstance(part, Answer) else part
        finally:
            del self.turn_model.turns[seed]

    def refuse(self, error: UncheckedContent) -> Any:
        """Returns the AIMessage for messages that no rail can read."""
        answer = blocked_answer("unchecked", str(error))
        return self._finish(None, answer, "")

    def _start(self, turn: ChatTurn) -> int:
        seed = secrets.randbits(31)
        while seed in self.turn_model.turns:
            seed = secrets.randbits(31)
        self.turn_model.turns[seed] = turn
        return seed

    def _finish(self, turn: ChatTurn | None, answer: Answer, session: str) -> Any:
        if answer.failure is not None:
            if turn is not None and turn.error is not None:
                raise turn.error
            raise RuntimeError(f"{answer.failure.kind}: {answer.failure.message}")
        self.record(answer.rulings)
        for call in answer.message.tool_calls:
            self._remember(call_digest(session, call.name, call.arguments, call.id))
        rulings = self.guarded.rulings_for_clients(answer.rulings)
        token = secrets.token_hex(16)
        self._remember(token.encode())
        metadata = {
            "finish_reason": answer.finish_reason,
            "truing": {
                "blocked": answer.finish_reason == "blocked",
                "turn": token,
                **decision_record(rulings),
            },
        }
        if answer.finish_reason == "blocked":
            metadata["finish_reason"] = "content_filter"
        return self._build_message(turn.reply if turn is not None else None, answer, metadata)

    def _build_message(self, reply: Any, answer: Answer, metadata: dict[str, Any]) -> Any:
        text, calls = answer.text, answer.message.tool_calls
        fields: dict[str, Any] = {}
        if reply is not None:
            metadata = {**_shown_metadata(reply), **metadata}
            fields = {"usage_metadata": reply.usage_metadata, "id": reply.id}
        message = build_answer(text, calls, response_metadata=metadata, **fields)
        is_unchanged = reply is not None and read_content(reply.content, is_model=True) == text
        if self.keep_reasoning and is_unchanged:
            readable_fields = {
                "content": reply.content,
                "additional_kwargs": reply.additional_kwargs,
            }
            message = message.model_copy(update=readable_fields)
            self._remember(_kept_digest(message))
        return message

    def _remember(self, digest: bytes) -> None:
        self._passed[digest] = None
        while len(self._passed) > MAX_REMEMBERED:
            self._passed.popitem(last=False)

    def take_passed_call(self, session: str, call: Any) -> bool:
        """Returns whether a call of LangChain's form is one that a turn here has let pass, and that
        has not run yet: what has passed runs once.
        """
        arguments = json.dumps(call["args"], ensure_ascii=False)
        digest = call_digest(session, call["name"], arguments, call.get("id") or "")
        if digest not in self._passed:
            return False
        del self._passed[digest]
        return True

    def keeps(self, message: Any) -> bool:
        """Returns whether a message is an answer that was passed on with its reasoning."""
        return self.keep_reasoning and _kept_digest(message) in self._passed

    def has_answered(self, message: Any) -> bool:
        """Returns whether an AIMessage comes from these rails."""
        record = (message.response_metadata or {}).get("truing")
        token = record.get("turn") if isinstance(record, dict) else None
        return isinstance(token, str) and token.encode() in self._passed


def _kept_digest(message: Any) -> bytes:
    readable_values = [message.content, message.additional_kwargs, message.name]
    calls = [(call.id, call.name, call.arguments) for call in read_calls(message)]
    text = json.dumps([readable_values, calls], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()


def _shown_metadata(reply: Any) -> dict[str, Any]:
    """Returns the metadata of a reply without what may quote it, as log-probabilities do."""
    metadata = reply.response_metadata or {}
    return {name: metadata[name] for name in _SHOWN_METADATA if name in metadata}


def call_digest(session: str, name: str, arguments: str, call_id: str) -> bytes:
    """Returns a digest of a tool call in a session; the order of its arguments does not count."""
    with suppress(ValueError, RecursionError):
        arguments = json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    text = json.dumps([session, name, arguments, call_id])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()
