"""Reads responses in the OpenAI chat format, whole or streamed in chunks, as `Answer`s."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.types import Answer, Message, TokenLogprob, ToolCall, Usage
from truing.http.bounds import BoundExceeded

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
_MAX_FINISH_CHARS = 40
_MAX_TOKENS = 1_000_000_000
# Twice what a run stores: whatever reads every answer (filters, judges) takes time for each
# character.
_MAX_TEXT_CHARS = 2_000_000
_MAX_TOOL_CALLS = 256
_MAX_TOOL_CHARS = 1_000_000


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

    cached_tokens: float | None = None


def _token_count(count: float | None) -> int:
    """Returns a count of tokens; 0 for one that is none (a negative one would refill a budget)."""
    return int(count) if count is not None and 0 <= count <= _MAX_TOKENS else 0


class CompletionUsage(Struct):
    """Tokens of a request."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    prompt_tokens_details: PromptTokenDetails | None = None

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return _token_count(self.prompt_tokens) + _token_count(self.completion_tokens)

    def usage(self) -> Usage:
        """Returns the counts as `Usage`."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(
            _token_count(self.prompt_tokens),
            _token_count(self.completion_tokens),
            _token_count(cached),
        )


class Completion(Struct):
    """The response of `/chat/completions`."""

    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None


def _message_text(message: CompletionMessage) -> str:
    """Returns the text of a message. Raises BoundExceeded for a text that no model writes."""
    content = message.content
    if isinstance(content, list):  # text parts
        content = "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    # A refusal of a structured-output request has a field of its own; content is null then.
    text = content if content is not None else message.refusal or ""
    if len(text) > _MAX_TEXT_CHARS:
        raise BoundExceeded(f"an answer of more than {_MAX_TEXT_CHARS} characters")
    return text


def _token_logprobs(logprobs: CompletionLogprobs | None) -> tuple[TokenLogprob, ...] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return tuple(
        TokenLogprob(
            token.token, token.logprob, tuple((t.token, t.logprob) for t in token.top_logprobs)
        )
        for token in logprobs.content
    )


def _finish_reason(reason: str | None) -> str:
    return _FINISH.get(reason or "stop", reason or "stop")[:_MAX_FINISH_CHARS]


def _tool_calls(calls: list[tuple[str, str, str]]) -> tuple[ToolCall, ...]:
    """Returns the tool calls of (id, name, arguments). Raises ValueError if they are too large."""
    if len(calls) > _MAX_TOOL_CALLS:
        raise ValueError(f"{len(calls)} tool calls, more than {_MAX_TOOL_CALLS}")
    if sum(len(text) for call in calls for text in call) > _MAX_TOOL_CHARS:
        raise ValueError(f"tool calls of more than {_MAX_TOOL_CHARS} characters")
    return tuple(ToolCall(id, name, arguments or "{}") for id, name, arguments in calls)


def answers_from_completion(completion: Completion, limit: int | None = None) -> list[Answer]:
    """Returns the answers of a completion, at most `limit`; the first carries the usage of the
    whole request. Raises ValueError for tool calls that are too large.
    """
    usage = completion.usage.usage() if completion.usage is not None else Usage()
    answers = []
    for choice in completion.choices[:limit]:
        calls = [
            (c.id or "", c.function.name or "", c.function.arguments or "")
            for c in choice.message.tool_calls or ()
        ]
        answers.append(
            Answer(
                message=Message("assistant", _message_text(choice.message), _tool_calls(calls)),
                finish_reason=_finish_reason(choice.finish_reason),
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
        self._text_chars = 0
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
            raise ValueError(f"the stream carries an error: {chunk.error}")
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
            if len(self._calls) > _MAX_TOOL_CALLS or len(parts[2]) > _MAX_TOOL_CHARS:
                raise ValueError("tool calls that are too large")
        text = _message_text(choice.delta)
        self._texts.append(text)
        self._text_chars += len(text)
        if self._text_chars > _MAX_TEXT_CHARS:
            raise BoundExceeded(f"an answer of more than {_MAX_TEXT_CHARS} characters")
        return text

    def answer(self) -> Answer:
        """Returns the whole answer; a failed one if the stream ended without a finish reason."""
        # A closed connection looks like a normal end of the event stream; only the finish reason
        # says that the text is complete.
        if self._finish is None:
            return Answer.failed("dropped", "the stream ended before the answer did")
        calls = [(c[0], c[1], c[2]) for _, c in sorted(self._calls.items())]
        return Answer(
            message=Message("assistant", "".join(self._texts), _tool_calls(calls)),
            finish_reason=_finish_reason(self._finish),
            usage=self._usage.usage() if self._usage is not None else Usage(),
            logprobs=_token_logprobs(CompletionLogprobs(self._tokens)) if self._tokens else None,
        )
