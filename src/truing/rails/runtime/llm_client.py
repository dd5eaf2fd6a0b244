"""The LLMs of a runtime as actions see them: any `Model`, called with a prompt."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from truing.core.errors import TruingError
from truing.core.protocols import Model, StreamingModel
from truing.core.text_calls import read_text_calls
from truing.core.types import (
    Conversation,
    Failure,
    ImageMessage,
    Message,
    Role,
    Ruling,
    Sampling,
    Tool,
    ToolCall,
    Usage,
)
from truing.rails.config.parameters import DefaultSampling
from truing.rails.runtime.chat_messages import (
    ChatMessage,
    ModelPrompt,
    image_addresses,
    model_text,
)
from truing.rails.runtime.stream_buffer import StreamBuffer

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


def split_thinking(text: str) -> tuple[str, str | None]:
    """Returns the text without its ``<think>`` parts, and the first of these (None without any)."""
    thinking: str | None = None
    kept_parts: list[str] = []
    position = 0
    while (start := text.find("<think>", position)) >= 0:
        end = text.find("</think>", start)
        if end < 0:
            break
        kept_parts.append(text[position:start])
        if thinking is None:
            thinking = text[start + len("<think>") : end].strip()
        position = end + len("</think>")
    if thinking is None:
        return text, None
    return "".join([*kept_parts, text[position:]]).strip(), thinking


class LlmError(TruingError):
    """The LLM gave no answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.rulings: tuple[Ruling, ...] = ()
        super().__init__(f"{failure.kind}: {failure.message}")


class SpeculationStopped(TruingError):
    """The speculative copy of a turn reached what must not run twice, or was cancelled."""


@dataclass(slots=True)
class LlmReply:
    """An LLM's reply: its text without the ``<think>`` part, that part, and its tool calls.

    `usage` holds no tokens where the model streamed: a stream brings none.
    """

    content: str
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class LlmCallRecord:
    """One call of an LLM: its task, prompt (as text) and reply, and what it took.

    The tokens are 0 where the model did not count them.
    """

    task: str
    prompt: str
    completion: str
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class CallCounter:
    """Counts the LLM calls and tokens of one turn; `records` holds the calls if it is a list."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    records: list[LlmCallRecord] | None = None

    def record(
        self, task: str, conversation: Conversation, reply: LlmReply, seconds: float
    ) -> None:
        """Records a call, if the turn asks for records."""
        if self.records is not None:
            prompt = "\n".join(f"{m.role}: {m.content}" for m in conversation.messages)
            tokens = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
            self.records.append(LlmCallRecord(task, prompt, reply.content, seconds, *tokens))

    def usage(self) -> Usage:
        """Returns the tokens as a `Usage`."""
        return Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens)


CallKey = tuple[int, Conversation, Sampling]  # id of the model, prompt, sampling


class SpeculationCache:
    """The replies that a turn's speculative copy has asked for, by model, prompt and sampling.

    The copy calls `fetch`; the turn itself calls `take`, and waits for the reply if it is still on
    its way.
    """

    def __init__(self) -> None:
        self._replies: dict[CallKey, asyncio.Future[LlmReply]] = {}
        self.task: asyncio.Task[None] | None = None  # the task that runs the copy

    async def fetch(self, key: CallKey, call: Callable[[], Awaitable[LlmReply]]) -> LlmReply:
        """Makes a call of the copy and stores its reply (or its error) for the turn."""
        if key in self._replies:
            return await self._replies[key]
        future = self._replies[key] = asyncio.get_running_loop().create_future()
        # Marks an error as retrieved: the turn may never ask for it, and asyncio would warn.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        try:
            reply = await call()
        except BaseException as error:
            if not future.done():
                # A cancellation of the copy must not cancel the turn that waits for the future.
                is_error = isinstance(error, Exception)
                future.set_exception(error if is_error else SpeculationStopped("cancelled"))
            raise
        if not future.done():
            future.set_result(reply)
        return reply

    def take(self, key: CallKey) -> asyncio.Future[LlmReply] | None:
        """Removes and returns the reply to a call; on a miss, cancels the speculative copy.

        A miss means that the turn has diverged from its copy or has overtaken it: the copy is
        useless.
        """
        reply = self._replies.pop(key, None)
        if reply is None and self.task is not None:
            self.task.cancel()
        return reply


def conversation_from_prompt(prompt: ModelPrompt, images: Collection[str] = ()) -> Conversation:
    """Returns a prompt (a text, or chat messages with `type` or `role`) as a conversation.

    Of the images in its messages it holds those whose addresses are in `images`.
    """
    if isinstance(prompt, str):
        return Conversation((Message("user", prompt),))
    messages: list[Message] = []
    for row in prompt:
        if isinstance(row, ChatMessage):
            messages.append(row.to_message(images))
            continue
        role = _ROLES.get(str(row.get("type") or row.get("role")), "user")
        tool_calls = tuple(
            ToolCall.from_openai(call)
            for call in row.get("tool_calls") or ()
            if isinstance(call, dict) and "function" in call
        )
        text = model_text(row.get("content"))
        call_id = row.get("tool_call_id")
        shown = tuple(i for i in image_addresses(row.get("content")) if i in images)
        if shown:
            messages.append(ImageMessage(role, text, tool_calls, call_id, shown))
        else:
            messages.append(Message(role, text, tool_calls, call_id))
    return Conversation(tuple(messages))


_NO_TIMEOUT = nullcontext()


class LlmClient:
    """One LLM for one turn; actions get it as `llm`.

    Calling it returns an `LlmReply`. `generate_async` and `ainvoke` are the methods that actions
    written for NeMo Guardrails and for LangChain call. `timeout` (seconds) bounds each call.
    """

    def __init__(
        self,
        model: Model,
        counter: CallCounter,
        base: Sampling,
        *,
        timeout: float | None = None,
        speculation: SpeculationCache | None = None,
        is_speculative_copy: bool = False,
        explicit_fields: Collection[str] | None = None,
        require_permission: Callable[[], None] | None = None,
    ) -> None:
        default_sampling = getattr(model, "default_sampling", None)
        if isinstance(default_sampling, DefaultSampling):
            base = default_sampling.apply_to(base, explicit_fields)
        self.model, self.counter, self.base = model, counter, base
        self.timeout = timeout
        self.task = "main"  # as the record of the calls names it
        self.require_permission = require_permission
        self.images: Collection[str] = ()  # addresses of the images that the model may get
        self.speculation, self.is_speculative_copy = speculation, is_speculative_copy

    def sampling(
        self, params: dict[str, Any], stop: Sequence[str] | None, tools: tuple[Tool, ...] = ()
    ) -> Sampling:
        """Returns the sampling of a call.

        The task's parameters go first, then the request's, then the model's own of the
        configuration.
        """
        base = self.base
        return Sampling(
            max_tokens=int(params.get("max_tokens") or base.max_tokens),
            temperature=float(params.get("temperature", base.temperature)),
            top_p=float(params.get("top_p", base.top_p)),
            seed=base.seed,
            stop=tuple(stop or params.get("stop") or base.stop),
            tools=tools,
            environment=base.environment,
        )

    async def __call__(
        self,
        prompt: ModelPrompt,
        *,
        stop: Sequence[str] | None = None,
        stream: StreamBuffer | None = None,
        tools: tuple[Tool, ...] = (),
        **params: Any,
    ) -> LlmReply:
        """Makes one call, or takes its reply from the speculation cache. Raises LlmError.

        `require_permission` is called first; it raises what forbids the call.
        """
        if self.require_permission is not None:
            self.require_permission()
        images = self.images if getattr(self.model, "reads_images", False) else ()
        conversation = conversation_from_prompt(prompt, images)
        sampling = self.sampling(params, stop, tools)
        if self.speculation is None:
            return await self._call_with_timeout(conversation, sampling, stream)
        key = (id(self.model), conversation, sampling)
        if self.is_speculative_copy:
            return await self.speculation.fetch(
                key, lambda: self._call_with_timeout(conversation, sampling, None)
            )
        cached = self.speculation.take(key)
        if cached is None:
            return await self._call_with_timeout(conversation, sampling, stream)
        reply = await cached
        if stream is None:
            return reply
        await stream.push(reply.content)
        await stream.finish()
        return dataclasses.replace(reply, content=stream.completion)

    async def _call_with_timeout(
        self, conversation: Conversation, sampling: Sampling, stream: StreamBuffer | None
    ) -> LlmReply:
        self.counter.calls += 1
        start_time = time.perf_counter()
        try:
            limit = _NO_TIMEOUT if self.timeout is None else asyncio.timeout(self.timeout)
            async with limit:
                if stream is not None:
                    reply = await self._call_streaming(conversation, sampling, stream)
                else:
                    reply = await self._call_model(conversation, sampling)
            seconds = time.perf_counter() - start_time
            self.counter.record(self.task, conversation, reply, seconds)
            return reply
        except TimeoutError as error:
            seconds_allowed = "it is given" if self.timeout is None else f"{self.timeout:g} s"
            message = f"the LLM took longer than {seconds_allowed}"
            raise LlmError(Failure("model", "timeout", message)) from error

    async def _call_model(self, conversation: Conversation, sampling: Sampling) -> LlmReply:
        answers = await self.model.generate(conversation, sampling)
        if not answers:
            raise LlmError(Failure("model", "empty", "no answer came back"))
        answer = answers[0]
        if answer.failure is not None:
            raise LlmError(answer.failure)
        self.counter.prompt_tokens += answer.usage.prompt_tokens
        self.counter.completion_tokens += answer.usage.completion_tokens
        self.counter.cached_tokens += answer.usage.cached_tokens
        text, thinking = split_thinking(answer.text)
        message = replace(answer.message, content=text)
        if sampling.tools:
            # Here, below the rails: the program behind them may execute calls in a text too.
            message = read_text_calls(message)
        return LlmReply(
            message.content, thinking, message.tool_calls, answer.finish_reason, answer.usage
        )

    async def _call_streaming(
        self, conversation: Conversation, sampling: Sampling, stream: StreamBuffer
    ) -> LlmReply:
        usage = Usage()
        # Tool calls do not come through `stream`, so a call with tools is made as a whole.
        if isinstance(self.model, StreamingModel) and not sampling.tools:
            try:
                async for chunk in self.model.stream(conversation, sampling):
                    await stream.push(chunk)
            except (TruingError, ConnectionError, ValueError) as error:
                raise LlmError(Failure("model", "stream", str(error))) from error
        else:
            reply = await self._call_model(conversation, sampling)
            if reply.tool_calls:
                return reply
            await stream.push(reply.content)
            usage = reply.usage
        await stream.finish()
        return LlmReply(stream.completion, usage=usage)

    async def generate_async(self, prompt: Any, *, stop: Any = None, **params: Any) -> LlmReply:
        """Makes one call, for actions written for NeMo Guardrails."""
        return await self(prompt, stop=stop, **params)

    async def ainvoke(self, input: Any, **params: Any) -> LlmReply:
        """Makes one call, for actions written for LangChain models."""
        return await self(input if isinstance(input, (str, list)) else str(input), **params)
