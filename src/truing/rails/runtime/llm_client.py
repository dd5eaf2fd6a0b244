"""The LLMs of a runtime, as actions see them: any `Model`, called with a prompt, its failures raised."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from truing.core.errors import TruingError
from truing.core.protocols import Model, StreamingModel
from truing.core.types import (
    Conversation,
    Failure,
    Message,
    Role,
    Ruling,
    Sampling,
    Tool,
    ToolCall,
    Usage,
)
from truing.rails.config.parameters import DefaultSampling
from truing.rails.runtime.stream_buffer import Sink

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "human": "user",
    "tool": "tool",
    "developer": "system",
}
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class LlmError(TruingError):
    """The LLM gave no answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.rulings: tuple[Ruling, ...] = ()
        super().__init__(f"{failure.kind}: {failure.message}")


@dataclass(slots=True)
class Reply:
    """What the LLM said: the text without a ``<think>`` part, that part, tool calls."""

    content: str
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"


@dataclass(slots=True)
class Tally:
    """Counts the calls and tokens of one turn."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def usage(self) -> Usage:
        """As a `Usage`."""
        return Usage(self.prompt_tokens, self.completion_tokens)


Key = tuple[int, Conversation, Sampling]


class NoFurther(TruingError):
    """The copy has come to something that must not be done twice."""


class Ahead:
    """The answers that are on their way, by model, prompt and sampling."""

    def __init__(self) -> None:
        self._asked: dict[Key, asyncio.Future[Reply]] = {}
        self.copy: asyncio.Task[None] | None = None

    async def ask(self, key: Key, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """The copy's side: asks, and keeps what comes."""
        if key in self._asked:
            return await self._asked[key]
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody may want it
        try:
            reply = await call()
        except BaseException as error:
            if not future.done():
                future.set_exception(
                    error if isinstance(error, Exception) else NoFurther("cancelled")
                )
            raise
        if not future.done():
            future.set_result(reply)
        return reply

    def find(self, key: Key) -> asyncio.Future[Reply] | None:
        """The turn's side: the answer to an equal question, which is used once. If there is none, the turn has taken another
        way than its copy, or has overtaken it: the copy is of no more use."""
        found = self._asked.pop(key, None)
        if found is None and self.copy is not None:
            self.copy.cancel()
        return found


def as_conversation(prompt: str | Sequence[dict[str, Any]]) -> Conversation:
    """A prompt as a conversation: a text is one user message."""
    if isinstance(prompt, str):
        return Conversation((Message("user", prompt),))
    rows = []
    for row in prompt:
        role = _ROLES.get(str(row.get("type") or row.get("role")), "user")
        calls = tuple(
            ToolCall.from_openai(call)
            for call in row.get("tool_calls") or ()
            if isinstance(call, dict) and "function" in call
        )
        content = row.get("content")
        text = content if isinstance(content, str) else _parts(content)
        rows.append(Message(role, text, calls, row.get("tool_call_id")))
    return Conversation(tuple(rows))


def _parts(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(
            str(p.get("text", ""))
            for p in content
            if isinstance(p, dict) and p.get("type") == "text"
        )
    return "" if content is None else str(content)


class Llm:
    """One LLM for one turn. `__call__` gives a `Reply`; `generate_async` and `ainvoke` serve existing actions."""

    def __init__(
        self,
        model: Model,
        tally: Tally,
        base: Sampling,
        *,
        seconds: float | None = None,
        ahead: Ahead | None = None,
        leads: bool = False,
        asked: Collection[str] | None = None,
    ) -> None:
        own = getattr(model, "default_sampling", None)
        self.model, self.tally = model, tally
        self.base = own.apply_to(base, asked) if isinstance(own, DefaultSampling) else base
        self.seconds, self.ahead, self.leads = seconds, ahead, leads

    def sampling(
        self, params: dict[str, Any], stop: Sequence[str] | None, tools: tuple[Tool, ...] = ()
    ) -> Sampling:
        """The call's sampling: the task's parameters, else the request's, else the model's own in the configuration."""
        base = self.base
        return Sampling(
            max_tokens=int(params.get("max_tokens") or base.max_tokens),
            temperature=float(params.get("temperature", base.temperature)),
            top_p=float(params.get("top_p", base.top_p)),
            seed=base.seed,
            stop=tuple(stop or params.get("stop") or base.stop),
            tools=tools,
        )

    async def __call__(
        self,
        prompt: str | Sequence[dict[str, Any]],
        *,
        stop: Sequence[str] | None = None,
        sink: Sink | None = None,
        tools: tuple[Tool, ...] = (),
        **params: Any,
    ) -> Reply:
        """One call; raises LlmError."""
        conversation, sampling = as_conversation(prompt), self.sampling(params, stop, tools)
        if self.ahead is None:
            return await self._bounded(conversation, sampling, sink)
        key = (id(self.model), conversation, sampling)
        if self.leads:
            return await self.ahead.ask(key, lambda: self._bounded(conversation, sampling, None))
        found = self.ahead.find(key)
        if found is None:
            return await self._bounded(conversation, sampling, sink)
        reply = await found
        if sink is not None:
            await sink.push(reply.content)
            await sink.finish()
            return Reply(sink.completion, reply.thinking, reply.tool_calls, reply.finish)
        return reply

    async def _bounded(
        self, conversation: Conversation, sampling: Sampling, sink: Sink | None
    ) -> Reply:
        """One call within the time that it may take."""
        self.tally.calls += 1
        try:
            async with asyncio.timeout(self.seconds):
                if sink is not None:
                    return await self._streamed(conversation, sampling, sink)
                return await self._whole(conversation, sampling)
        except TimeoutError as error:
            raise LlmError(
                Failure("model", "timeout", f"the LLM took longer than {self.seconds:g} s")
            ) from error

    async def _whole(self, conversation: Conversation, sampling: Sampling) -> Reply:
        answers = await self.model.generate(conversation, sampling)
        if not answers:
            raise LlmError(Failure("model", "empty", "no answer came back"))
        answer = answers[0]
        if answer.failure is not None:
            raise LlmError(answer.failure)
        self.tally.prompt_tokens += answer.usage.prompt_tokens
        self.tally.completion_tokens += answer.usage.completion_tokens
        text, thinking = answer.text, None
        if "<think>" in text and "</think>" in text:
            found = _THINK.search(text)
            thinking = found[1].strip() if found else None
            text = _THINK.sub("", text).strip()
        return Reply(text, thinking, answer.message.tool_calls, answer.finish_reason)

    async def _streamed(self, conversation: Conversation, sampling: Sampling, sink: Sink) -> Reply:
        if isinstance(self.model, StreamingModel) and not sampling.tools:
            try:
                async for piece in self.model.stream(conversation, sampling):
                    await sink.push(piece)
            except (TruingError, ConnectionError, ValueError) as error:
                raise LlmError(Failure("model", "stream", str(error))) from error
        else:
            reply = await self._whole(conversation, sampling)
            if reply.tool_calls:
                return reply
            await sink.push(reply.content)
        await sink.finish()
        return Reply(sink.completion)

    async def generate_async(self, prompt: Any, *, stop: Any = None, **params: Any) -> Reply:
        """For actions written for NeMo."""
        return await self(prompt, stop=stop, **params)

    async def ainvoke(self, input: Any, **params: Any) -> Reply:
        """For actions written for LangChain models."""
        return await self(input if isinstance(input, (str, list)) else str(input), **params)
