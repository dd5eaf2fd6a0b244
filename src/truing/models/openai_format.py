"""Reads responses in the OpenAI chat format, whole or streamed in chunks, as `Answer`s."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.types import Answer, Message, TokenLogprob, ToolCall, Usage

# Finish reasons of OpenAI, and of compatible servers that use names of their own.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "eos": "stop",
    "stop_sequence": "stop",
}


class FunctionCall(Struct):
    """A function call, or a chunk of one."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPart(Struct):
    """A tool call, or a chunk of one."""

    id: str | None = None
    index: int = 0
    function: FunctionCall = field(default_factory=FunctionCall)


class CompletionMessage(Struct):
    """A message, or a chunk of one."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None


class CompletionToken(Struct):
    """A token with its log-probability."""

    token: str
    logprob: float
    top_logprobs: list[CompletionToken] = field(default_factory=list)


class CompletionLogprobs(Struct):
    """Log-probabilities of a message's tokens."""

    content: list[CompletionToken] | None = None


class CompletionChoice(Struct):
    """One answer of a completion."""

    message: CompletionMessage
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class PromptTokenDetails(Struct):
    """How many of the prompt tokens came from the server's cache."""

    cached_tokens: int | None = None


class CompletionUsage(Struct):
    """Tokens of a request."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokenDetails | None = None

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def usage(self) -> Usage:
        """Returns the counts as `Usage`."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, cached or 0)


class Completion(Struct):
    """The response of `/chat/completions`."""

    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


def _message_text(message: CompletionMessage) -> str:
    content = message.content
    if isinstance(content, list):  # text parts
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    # A refusal of a structured-output request has a field of its own; content is null then.
    if content is None:
        return message.refusal or ""
    return content


def _token_logprobs(logprobs: CompletionLogprobs | None) -> tuple[TokenLogprob, ...] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return tuple(
        TokenLogprob(
            token.token, token.logprob, tuple((t.token, t.logprob) for t in token.top_logprobs)
        )
        for token in logprobs.content
    )


def answers_from_completion(completion: Completion) -> list[Answer]:
    """Returns the answers of a completion; the first carries the usage of the whole request."""
    usage = completion.usage.usage() if completion.usage is not None else Usage()
    answers = []
    for choice in completion.choices:
        calls = choice.message.tool_calls
        tools = tuple(
            ToolCall(c.id or "", c.function.name or "", c.function.arguments or "{}")
            for c in calls or ()
        )
        answers.append(
            Answer(
                message=Message("assistant", _message_text(choice.message), tools),
                finish_reason=_FINISH.get(
                    choice.finish_reason or "stop", choice.finish_reason or "stop"
                ),
                usage=usage,
                logprobs=_token_logprobs(choice.logprobs),
            )
        )
        # The API counts a request once, whatever `n`: a sum over the answers must not repeat it.
        usage = Usage()
    return answers


class _ChunkChoice(Struct):
    delta: CompletionMessage = field(default_factory=CompletionMessage)
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class _Chunk(Struct):
    choices: list[_ChunkChoice] = field(default_factory=list)
    usage: CompletionUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamAssembler:
    """Joins the chunks of a streamed answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._tokens: list[CompletionToken] = []
        self._finish: str | None = None
        self._usage: CompletionUsage | None = None

    def add(self, data: bytes) -> str:
        """Adds the data of one event; returns the text in it. Raises ValueError for an error in the
        stream.
        """
        chunk = _decode(data)
        if chunk.error is not None:
            raise ValueError(f"the stream carries an error: {str(chunk.error)[:200]}")
        if chunk.usage is not None:
            self._usage = chunk.usage
        # With include_usage the last chunk has the usage and an empty list of choices.
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self._finish = choice.finish_reason or self._finish
        if choice.logprobs is not None and choice.logprobs.content:
            self._tokens += choice.logprobs.content
        for call in choice.delta.tool_calls or ():
            # Id, name and arguments of a call arrive in fragments; its index says which call they
            # belong to.
            parts = self._calls.setdefault(call.index, ["", "", ""])
            # The id comes whole and in the first fragment only; name and arguments are
            # concatenated.
            parts[0] = call.id or parts[0]
            parts[1] += call.function.name or ""
            parts[2] += call.function.arguments or ""
        text = _message_text(choice.delta)
        self._texts.append(text)
        return text

    def answer(self) -> Answer:
        """Returns the whole answer; a failed one if the stream ended without a finish reason."""
        # A closed connection looks like a normal end of the event stream; only the finish reason
        # says that the text is complete.
        if self._finish is None:
            return Answer.failed("dropped", "the stream ended before the answer did")
        calls = tuple(
            ToolCall(i, name, arguments or "{}")
            for _, (i, name, arguments) in sorted(self._calls.items())
        )
        return Answer(
            message=Message("assistant", "".join(self._texts), calls),
            finish_reason=_FINISH.get(self._finish, self._finish),
            usage=self._usage.usage() if self._usage is not None else Usage(),
            logprobs=_token_logprobs(CompletionLogprobs(self._tokens)) if self._tokens else None,
        )
