"""The OpenAI wire form as a server reads and writes it; unknown fields of a request are ignored, wrong ones refused."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from truing.core.protocols import Judge
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Ruling,
    Sampling,
    TokenLogprob,
    Tool,
    Usage,
)


class WireFunction(Struct):
    """A function offered to the model."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


class WireTool(Struct):
    """A tool; only functions are known."""

    type: str
    function: WireFunction


class GuardrailsRequest(Struct):
    """`config_id` picks a configuration; `options` are NeMo's generation options; `options.log` asks for the record."""

    config_id: str | None = None
    config_ids: list[str] | None = None
    options: dict[str, Any] | None = None


class ChatRequest(Struct):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    model: str = ""
    n: Annotated[int, Meta(ge=1, le=32)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    tools: list[WireTool] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    guardrails: GuardrailsRequest | None = None

    def conversation(self) -> Conversation:
        """ValueError where a message is not in the OpenAI form, or there is none."""
        if not self.messages:
            raise ValueError("messages: at least one is needed")
        return Conversation.from_openai(self.messages)

    def sampling(self, default_tokens: int) -> Sampling:
        """How to draw; greedy unless a temperature is given, as everywhere in truing."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        tools = tuple(
            Tool(
                t.function.name,
                t.function.description,
                msgspec.json.encode(t.function.parameters).decode(),
            )
            for t in self.tools or ()
        )
        return Sampling(
            n=self.n or 1,
            max_tokens=self.max_completion_tokens or self.max_tokens or default_tokens,
            temperature=self.temperature if self.temperature is not None else 0.0,
            top_p=self.top_p if self.top_p is not None else 1.0,
            seed=self.seed if self.seed is not None else secrets.randbits(31),
            stop=stop,
            tools=tools,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    @property
    def named(self) -> frozenset[str]:
        """The fields of `Sampling` that the request names; the others may come from the configuration of the rails."""
        given = {
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop,
        }
        return frozenset(name for name, value in given.items() if value is not None)

    @property
    def config(self) -> str | None:
        """The configuration asked for, if any."""
        asked = self.guardrails
        if asked is None:
            return None
        return asked.config_id or next(iter(asked.config_ids or ()), None)

    @property
    def options(self) -> dict[str, Any] | None:
        """The generation options asked for, if any."""
        return (self.guardrails.options or None) if self.guardrails else None

    @property
    def wants_record(self) -> bool:
        """Whether the decision record was asked for."""
        return bool((self.options or {}).get("log"))


class ModerationRequest(Struct):
    """POST /v1/moderations."""

    input: str | list[str]
    model: str = ""


class CheckRequest(Struct):
    """POST /v1/checks: does this conversation (and, with a last assistant message, this answer) pass the rails?"""

    messages: list[dict[str, Any]]
    guardrails: GuardrailsRequest | None = None
    model: str = ""


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.message.tool_calls:
        message["tool_calls"] = [
            {**call.to_openai(), "id": call.id or f"call_{k}"}
            for k, call in enumerate(answer.message.tool_calls)
        ]
    elif answer.text == "":
        message["content"] = ""
    return message


_FINISH = {"blocked": "content_filter", "abstained": "content_filter", "error": "stop"}


def finish_reason(answer: Answer) -> str:
    """The OpenAI word: what rails blocked or a best-of abstained from is `content_filter`."""
    return _FINISH.get(answer.finish_reason, answer.finish_reason)


def _tokens(logprobs: tuple[TokenLogprob, ...] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {
        "content": [
            {
                "token": t.token,
                "logprob": t.logprob,
                "bytes": list(t.token.encode()),
                "top_logprobs": [
                    {"token": s, "logprob": p, "bytes": list(s.encode())} for s, p in t.top
                ],
            }
            for t in logprobs
        ]
    }


def record(rulings: tuple[Ruling, ...]) -> dict[str, Any]:
    """The decision record of a turn, as CONTRACTS names its fields."""
    rails = [
        {
            "name": r.name,
            "stage": r.stage,
            "ruling": r.ruling,
            "reason": r.reason,
            "score": r.score,
            "evidence": r.evidence,
            "ms": r.ms,
            "llm_calls": r.llm_calls,
        }
        for r in rulings
    ]
    return {"rails": rails}


def new_id() -> str:
    """`chatcmpl-...`."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def usage_of(answers: tuple[Answer, ...]) -> dict[str, int]:
    """Tokens read (once) and written (by all answers)."""
    read = max((a.usage.prompt_tokens for a in answers), default=0)
    written = sum(a.usage.completion_tokens for a in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def delta(answer: Answer) -> dict[str, Any]:
    """A whole answer as the one piece of a stream."""
    message = _message(answer)
    calls = [{"index": k, **c} for k, c in enumerate(message.get("tool_calls", ()))]
    return {"content": message["content"], **({"tool_calls": calls} if calls else {})}


def completion(request: ChatRequest, model: str, answers: tuple[Answer, ...]) -> bytes:
    """The body of a whole answer."""
    body: dict[str, Any] = {
        "id": new_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": k,
                "message": _message(a),
                "finish_reason": finish_reason(a),
                "logprobs": _tokens(a.logprobs),
            }
            for k, a in enumerate(answers)
        ],
        "usage": usage_of(answers),
    }
    if request.config is not None or request.wants_record:
        body["guardrails"] = {"config_id": request.config}
    if request.wants_record:
        body["guardrails"] |= record(answers[0].rulings)
    return msgspec.json.encode(body)


def chunk(
    id_: str, model: str, delta: dict[str, Any], finish: str | None = None, **more: Any
) -> bytes:
    """One server-sent event of a streamed answer."""
    body = {
        "id": id_,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        **more,
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def last_chunk(
    id_: str, model: str, request: ChatRequest, answer: Answer | None, usage: bool
) -> bytes:
    """The event that ends a stream: why it ended, and what it cost and what the rails decided where that was asked for."""
    more: dict[str, Any] = {}
    if usage:
        known = (
            answer is not None and answer.usage != Usage()
        )  # a model that streams text alone counts no tokens
        more["usage"] = usage_of((answer,)) if answer is not None and known else None
    if request.wants_record and answer is not None:
        more["guardrails"] = {"config_id": request.config, **record(answer.rulings)}
    return chunk(id_, model, {}, finish_reason(answer) if answer is not None else "stop", **more)


def _half(harms: dict[str, float]) -> list[str]:
    return [c for c, p in harms.items() if p >= 0.5]


def _categories(
    harms: dict[str, float], over: Callable[[dict[str, float]], Sequence[str]]
) -> dict[str, bool]:
    flagged = set(over(harms))
    return {c: c in flagged for c in harms}


def moderation(judge: Judge, found: Sequence[Judgement]) -> bytes:
    """OpenAI's moderation results. An unscored text is flagged, with `failure` saying why.

    A judge that has thresholds of its own for categories says which are over them (`flagged`); of others 0.5 is asked.
    """
    over: Callable[[dict[str, float]], Sequence[str]] = getattr(judge, "flagged", _half)
    results = []
    for one in found:
        results.append(
            {
                "flagged": one.verdict is not False,
                "categories": _categories(one.harms, over),
                "category_scores": one.harms,
                "score": one.score,
                "failure": one.failure.message if one.failure is not None else None,
            }
        )
    return msgspec.json.encode(
        {"id": f"modr-{secrets.token_hex(12)}", "model": judge.name, "results": results}
    )


def check(allowed: bool, answer: Answer) -> bytes:
    """The body of /v1/checks."""
    shown = None if allowed else answer.text
    return msgspec.json.encode(
        {"allowed": allowed, "message": shown, "guardrails": record(answer.rulings)}
    )


def error_body(message: str, kind: str = "invalid_request_error", code: str | None = None) -> bytes:
    """An error in the OpenAI form."""
    return msgspec.json.encode(
        {"error": {"message": message, "type": kind, "param": None, "code": code}}
    )
