"""The OpenAI chat wire form: what a server answers, whole or piece by piece, as `Answer`s."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.types import Answer, Message, TokenLogprob, ToolCall, Usage

_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "eos": "stop",
    "stop_sequence": "stop",
}


class WireFunction(Struct):
    """A function call, or a piece of one."""

    name: str | None = None
    arguments: str | None = None


class WireCall(Struct):
    """A tool call, or a piece of one."""

    id: str | None = None
    index: int = 0
    function: WireFunction = field(default_factory=WireFunction)


class WireMessage(Struct):
    """A message, or a piece of one."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[WireCall] | None = None


class WireToken(Struct):
    """A token with its log-probability."""

    token: str
    logprob: float
    top_logprobs: list[WireToken] = field(default_factory=list)


class WireLogprobs(Struct):
    """Log-probabilities of a message's tokens."""

    content: list[WireToken] | None = None


class Choice(Struct):
    """One answer of a completion."""

    message: WireMessage
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class Details(Struct):
    """Of the tokens read, those that a cache served."""

    cached_tokens: int | None = None


class WireUsage(Struct):
    """Tokens of a request."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None

    @property
    def total(self) -> int:
        """Read and written."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def usage(self) -> Usage:
        """In the house's form."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(self.prompt_tokens or 0, self.completion_tokens or 0, cached or 0)


class Completion(Struct):
    """What `/chat/completions` answers."""

    choices: list[Choice]
    usage: WireUsage | None = None


def _text(message: WireMessage) -> str:
    content = message.content
    if isinstance(content, list):  # text parts
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    if content is None:
        return message.refusal or ""
    return content


def _logprobs(given: WireLogprobs | None) -> tuple[TokenLogprob, ...] | None:
    if given is None or given.content is None:
        return None
    tops = (tuple((a.token, a.logprob) for a in t.top_logprobs) for t in given.content)
    return tuple(TokenLogprob(t.token, t.logprob, top) for t, top in zip(given.content, tops))


def answers_of(made: Completion) -> list[Answer]:
    """The answers of a completion; the usage of the request stands at the first."""
    usage = made.usage.usage() if made.usage is not None else Usage()
    answers = []
    for choice in made.choices:
        calls = choice.message.tool_calls
        tools = tuple(
            ToolCall(c.id or "", c.function.name or "", c.function.arguments or "{}")
            for c in calls or ()
        )
        answers.append(
            Answer(
                message=Message("assistant", _text(choice.message), tools),
                finish_reason=_FINISH.get(
                    choice.finish_reason or "stop", choice.finish_reason or "stop"
                ),
                usage=usage,
                logprobs=_logprobs(choice.logprobs),
            )
        )
        usage = Usage()
    return answers


class _PieceChoice(Struct):
    delta: WireMessage = field(default_factory=WireMessage)
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class _Piece(Struct):
    choices: list[_PieceChoice] = field(default_factory=list)
    usage: WireUsage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Piece).decode


class Assembly:
    """Puts the pieces of a streamed answer together."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._tokens: list[WireToken] = []
        self._finish: str | None = None
        self._usage: WireUsage | None = None

    def add(self, data: bytes) -> str:
        """One event's data; gives the text that it adds."""
        piece = _decode(data)
        if piece.error is not None:
            raise ValueError(f"the stream carries an error: {str(piece.error)[:200]}")
        if piece.usage is not None:
            self._usage = piece.usage
        if not piece.choices:
            return ""
        choice = piece.choices[0]
        self._finish = choice.finish_reason or self._finish
        if choice.logprobs is not None and choice.logprobs.content:
            self._tokens += choice.logprobs.content
        for call in choice.delta.tool_calls or ():
            kept = self._calls.setdefault(call.index, ["", "", ""])
            kept[0] = call.id or kept[0]
            kept[1] += call.function.name or ""
            kept[2] += call.function.arguments or ""
        text = _text(choice.delta)
        self._texts.append(text)
        return text

    def answer(self) -> Answer:
        """The whole answer; ValueError if the stream ended without saying why."""
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
            logprobs=_logprobs(WireLogprobs(self._tokens)) if self._tokens else None,
        )
