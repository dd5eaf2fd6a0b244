"""Requests and responses in the OpenAI form. Unknown fields of a request are ignored, wrong ones
refused.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from truing.core.flagged_categories import category_thresholds, flag_categories
from truing.core.protocols import Judge
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Sampling,
    TokenLogprob,
    Tool,
    Usage,
)
from truing.rails.runtime.conversation_check import CheckResult
from truing.rails.runtime.decision_record import decision_record


class FunctionSchema(Struct):
    """A function offered to the model."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


class ToolSchema(Struct):
    """A tool; functions are the only kind."""

    type: str
    function: FunctionSchema


class GuardrailsRequest(Struct):
    """`config_id` picks a configuration; `options` are NeMo's generation options; `options.log`
    asks for the record; `context` sets variables.

    What a client may set beside the record is for the configuration to say. `config_ids` combines
    several configurations; `thread_id` or `state` continues an earlier conversation.
    """

    config_id: str | None = None
    config_ids: list[str] | None = None
    options: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    thread_id: Any = None
    state: Any = None


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
    tools: list[ToolSchema] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    guardrails: GuardrailsRequest | None = None

    def conversation(self, *, with_images: bool = False) -> Conversation:
        """Returns the messages. Raises ValueError if there is none, or one is not in the OpenAI
        form, or has an image without `with_images`.
        """
        if not self.messages:
            raise ValueError("messages: at least one is needed")
        return Conversation.from_openai(self.messages, with_images=with_images)

    def sampling(self, most_tokens: int) -> Sampling:
        """Returns the sampling options; greedy unless a temperature is set, as everywhere in
        truing.

        `most_tokens` is the operator's limit: a request may ask for fewer tokens, not for more.
        """
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
            max_tokens=min(
                most_tokens, self.max_completion_tokens or self.max_tokens or most_tokens
            ),
            temperature=self.temperature if self.temperature is not None else 0.0,
            top_p=self.top_p if self.top_p is not None else 1.0,
            seed=self.seed if self.seed is not None else secrets.randbits(31),
            stop=stop,
            tools=tools,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    @property
    def explicit_fields(self) -> frozenset[str]:
        """Sampling fields set by the request (defaults do not override the configuration of the
        rails).
        """
        fields = {
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": self.stop,
        }
        return frozenset(name for name, value in fields.items() if value is not None)

    @property
    def config_ids(self) -> tuple[str, ...]:
        """The ids of the configurations that the request names, each once."""
        if self.guardrails is None:
            return ()
        one = [self.guardrails.config_id] if self.guardrails.config_id else []
        return tuple(dict.fromkeys(one or self.guardrails.config_ids or ()))

    @property
    def config(self) -> str | None:
        """The ids of the configurations joined by +; None if the request names none."""
        return "+".join(self.config_ids) or None

    @property
    def options(self) -> dict[str, Any] | None:
        """NeMo's generation options in the request, if any."""
        return (self.guardrails.options or None) if self.guardrails else None

    @property
    def wants_record(self) -> bool:
        """Whether the response is to hold the decisions of the rails."""
        return any(((self.options or {}).get("log") or {}).values())


class ModerationRequest(Struct):
    """POST /v1/moderations."""

    input: str | list[str]
    model: str = ""


class CheckRequest(Struct):
    """POST /v1/checks: do the rails allow these messages, in every stage that they contain?"""

    messages: list[dict[str, Any]]
    guardrails: GuardrailsRequest | None = None
    model: str = ""
    tools: list[ToolSchema] | None = None


def encode_json(body: dict[str, Any]) -> bytes:
    """Returns a body as JSON; lone surrogates, which a model may write, become question marks."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _message_body(answer: Answer) -> dict[str, Any]:
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
    """Returns the OpenAI finish reason: an answer that rails blocked, or best-of abstained from, is
    `content_filter`.
    """
    return _FINISH.get(answer.finish_reason, answer.finish_reason)


def _logprobs_body(logprobs: tuple[TokenLogprob, ...] | None) -> dict[str, Any] | None:
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


def new_completion_id() -> str:
    """Returns a random id, `chatcmpl-...`."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def usage_of(answers: tuple[Answer, ...]) -> dict[str, int]:
    """Returns the tokens read (the prompt once) and written (by all answers)."""
    prompt_tokens = max((a.usage.prompt_tokens for a in answers), default=0)
    completion_tokens = sum(a.usage.completion_tokens for a in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def delta(answer: Answer) -> dict[str, Any]:
    """Returns a whole answer as the delta of one stream chunk."""
    message = _message_body(answer)
    calls = [{"index": k, **c} for k, c in enumerate(message.get("tool_calls", ()))]
    return {"content": message["content"], **({"tool_calls": calls} if calls else {})}


def completion(
    request: ChatRequest,
    model: str,
    answers: tuple[Answer, ...],
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Returns the body of a chat completion; `extra` are further fields of `guardrails`."""
    body: dict[str, Any] = {
        "id": new_completion_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": k,
                "message": _message_body(a),
                "finish_reason": finish_reason(a),
                "logprobs": _logprobs_body(a.logprobs),
            }
            for k, a in enumerate(answers)
        ],
        "usage": usage_of(answers),
    }
    guardrails = guardrails_fields(request, answers[0], extra)
    if guardrails is not None:
        body["guardrails"] = guardrails
    return encode_json(body)


def guardrails_fields(
    request: ChatRequest, answer: Answer, extra: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Returns what a response says of the rails: the configuration, and what was asked for."""
    if request.config is None and not request.wants_record and not extra:
        return None
    record = decision_record(answer.rulings) if request.wants_record else {}
    return {"config_id": request.config, **record, **(extra or {})}


def chunk(
    completion_id: str, model: str, delta: dict[str, Any], finish: str | None = None, **fields: Any
) -> bytes:
    """Returns one server-sent event of a streamed answer; `fields` are added to its body."""
    body = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        **fields,
    }
    return b"data: " + encode_json(body) + b"\n\n"


def last_chunk(
    completion_id: str,
    model: str,
    request: ChatRequest,
    answer: Answer | None,
    include_usage: bool,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Returns the event that ends a stream: the finish reason and, where asked for, token usage and
    rail decisions; `extra` are further fields of `guardrails`.
    """
    fields: dict[str, Any] = {}
    if include_usage:
        # A model that streams text alone counts no tokens: no usage is better than zeros.
        counted = answer is not None and answer.usage != Usage()
        fields["usage"] = usage_of((answer,)) if answer is not None and counted else None
    if request.wants_record and answer is not None:
        fields["guardrails"] = {"config_id": request.config, **decision_record(answer.rulings)}
    if extra:
        fields["guardrails"] = {**fields.get("guardrails", {"config_id": request.config}), **extra}
    reason = finish_reason(answer) if answer is not None else "stop"
    return chunk(completion_id, model, {}, reason, **fields)


def moderation(judge: Judge, judgements: Sequence[Judgement]) -> bytes:
    """Returns OpenAI's moderation results. An unscored text is flagged, and `failure` says why it
    is unscored.

    A category is flagged by the judge's own thresholds, or from a probability of 0.5;
    `uncategorised` is true of a flagged text without one.
    """
    thresholds = category_thresholds(judge)
    text_results = []
    for judgement in judgements:
        is_flagged = judgement.verdict is not False
        # Categories of a text that is not flagged would contradict the verdict.
        flagged = set(flag_categories(judgement.harms, thresholds)) if is_flagged else set()
        text_results.append(
            {
                "flagged": is_flagged,
                "uncategorised": is_flagged and not flagged,
                "categories": {category: category in flagged for category in judgement.harms},
                "category_scores": judgement.harms,
                "score": judgement.score,
                "failure": judgement.failure.message if judgement.failure is not None else None,
            }
        )
    return encode_json(
        {"id": f"modr-{secrets.token_hex(12)}", "model": judge.name, "results": text_results}
    )


def check(result: CheckResult) -> bytes:
    """Returns the body of /v1/checks."""
    return encode_json(
        {
            "allowed": result.allowed,
            "not_run": result.not_run,
            "message": result.message,
            "guardrails": decision_record(result.rulings),
        }
    )


_MAX_ERROR = 600  # characters of an error message


def error_body(
    message: str,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> bytes:
    """Returns an error in the OpenAI form; `param` is the field of the request at fault.

    A message may quote a request, so it is cut.
    """
    if len(message) > _MAX_ERROR:
        message = message[:_MAX_ERROR] + "..."
    error = {"message": message, "type": kind, "param": param and param[:100], "code": code}
    return encode_json({"error": error})


def error_event(message: str, kind: str) -> bytes:
    """Returns an error as a server-sent event, for a stream that has begun."""
    return b"data: " + error_body(message, kind) + b"\n\n"
