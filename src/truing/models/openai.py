"""Any OpenAI-compatible chat endpoint: `openai:NAME,base_url=http://host:port/v1`.

Arguments: `base_url`, `api_key_env` (the name of the variable, never the key), `stream=true`,
`timeout`, `retries`, `budget_requests`, `budget_tokens`, `body` (a JSON object that is merged into
each request; a null takes a key out), `tokens_key` (`max_tokens`, or `max_completion_tokens` where
a server wants that), `api=completions` (for models without a chat API).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from truing.core.errors import UserError
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.redaction import find_json_secrets, redact_json
from truing.core.types import Answer, Conversation, Failure, Lineage, Sampling
from truing.http.client import (
    Endpoint,
    StreamError,
    bearer_headers,
    join_url,
    read_budget,
    validate_url,
)
from truing.http.retry import RequestError, RetryPolicy
from truing.models.openai_format import (
    Completion,
    CompletionChoice,
    CompletionMessage,
    CompletionUsage,
    StreamAssembler,
    answers_from_completion,
)
from truing.specs.resolve import Args

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Completion).decode


def _read_answers(limit: int, data: bytes) -> tuple[list[Answer], int]:
    """Returns at most `limit` answers of a completion, and the tokens that it used.

    Without `usage` in the reply nothing can be counted: it is optional in compatible servers.
    """
    completion = _decode(data)
    if not completion.choices:
        raise ValueError("no choices")
    tokens = completion.usage.total if completion.usage is not None else 0
    return answers_from_completion(completion, limit), tokens


class _TextChoice(Struct):
    text: str
    finish_reason: str | None = None


class _TextCompletion(Struct):
    choices: list[_TextChoice]
    usage: CompletionUsage | None = None


def _read_texts(limit: int, data: bytes) -> tuple[list[Answer], int]:
    """Returns at most `limit` answers of a reply of `/completions`, and the tokens that it used."""
    reply = msgspec.json.decode(data, type=_TextCompletion)
    choices = [
        CompletionChoice(CompletionMessage(content=choice.text), choice.finish_reason)
        for choice in reply.choices
    ]
    if not choices:
        raise ValueError("no choices")
    tokens = reply.usage.total if reply.usage is not None else 0
    return answers_from_completion(Completion(choices, reply.usage), limit), tokens


def _failed(failure: Failure) -> Answer:
    return Answer(message=Answer.of("").message, finish_reason="error", failure=failure)


class OpenAIModel:
    """A model behind `/chat/completions` (and, for log-probabilities of given text,
    `/completions`).
    """

    reads_images = True  # where the model does not, its server refuses the request
    _read_reply = staticmethod(_read_answers)

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        scoring: Endpoint | None = None,
        *,
        stream: bool = False,
        body: dict[str, Any] | None = None,
        tokens_key: str = "max_tokens",
    ) -> None:
        self.name = f"openai:{model}"
        self.endpoint = endpoint
        self._scoring = scoring
        self._model = model
        self._stream = stream
        self._body = body or {}
        self._tokens_key = tokens_key
        # Without secrets: a new key is no other model.
        extra = json.dumps(redact_json(self._body, environment={}), sort_keys=True)
        self.lineage = Lineage(
            name=self.name, hash=digest("openai", model, endpoint.identity, extra)
        )

    def _request_body(
        self, conversation: Conversation, sampling: Sampling, n: int, seed: int, stream: bool
    ) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": conversation.to_openai(),
            self._tokens_key: sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": seed & 0x7FFFFFFF,  # some servers take a signed 32-bit seed only
        }
        if n > 1:
            body["n"] = n
        if sampling.top_p != 1.0:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = sampling.stop
        if sampling.logprobs is not None:
            body["logprobs"], body["top_logprobs"] = True, sampling.logprobs
        if sampling.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": t.name,
                        "description": t.description,
                        "parameters": msgspec.Raw(t.parameters.encode()),
                    },
                }
                for t in sampling.tools
            ]
        if stream:
            body["stream"], body["stream_options"] = True, {"include_usage": True}
        if self._body:
            # The user's keys come last, so that they replace ours; a null removes one of ours.
            body = {k: v for k, v in {**body, **self._body}.items() if v is not None}
        return _encode(body)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers. Servers may return fewer than `n`: the rest is requested
        again.
        """
        answers: list[Answer] = []
        while (missing := sampling.n - len(answers)) > 0:
            # A repeated request with the same seed could return the same answers again.
            seed = sampling.seed if not answers else stream_seed(sampling.seed, len(answers))
            if self._stream:
                new_answers = [await self._generate_streamed(conversation, sampling, seed)]
            else:
                body = self._request_body(conversation, sampling, missing, seed, False)
                reply = await self.endpoint.send_request(body, partial(self._read_reply, missing))
                if isinstance(reply, Failure):
                    return (*answers, *[_failed(reply)] * missing)
                new_answers, tokens = reply
                self.endpoint.budget.spend_tokens(tokens)
            answers += new_answers[:missing]
        return tuple(answers)

    async def _generate_streamed(
        self, conversation: Conversation, sampling: Sampling, seed: int
    ) -> Answer:
        """A stream that breaks off is requested again: its tokens cannot be resumed."""

        async def collect(events: AsyncIterator[bytes]) -> Answer:
            assembler = StreamAssembler()
            async for data in events:
                assembler.add(data)
            answer = assembler.answer()
            if answer.failure is not None:
                raise RequestError(answer.failure.kind, answer.failure.message)
            return answer

        body = self._request_body(conversation, sampling, 1, seed, True)
        answer = await self.endpoint.send_streaming_request(body, collect)
        if isinstance(answer, Failure):
            return _failed(answer)
        self.endpoint.budget.spend_tokens(
            answer.usage.prompt_tokens + answer.usage.completion_tokens
        )
        return answer

    async def stream(
        self, conversation: Conversation, sampling: Sampling
    ) -> AsyncGenerator[str, None]:
        """Yields chunks of the text. Raises ConnectionError when the endpoint breaks off."""
        assembler = StreamAssembler()
        body = self._request_body(conversation, sampling, 1, sampling.seed, True)
        try:
            async with aclosing(self.endpoint.stream(body)) as events:
                async for data in events:
                    text = assembler.add(data)
                    if text:
                        yield text
        except (ValueError, msgspec.MsgspecError) as error:
            raise StreamError(
                Failure("model", "unparsable", self.endpoint.clean(str(error)))
            ) from error
        failure = assembler.answer().failure
        if failure is not None:
            raise StreamError(failure)

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """Returns the log-probability of each token of each continuation (`/completions` with
        echo).

        Raises UserError for a conversation (the endpoint's chat template is not known here) and for
        endpoints that return no log-probabilities of their input.
        """
        if not isinstance(prefix, str) or self._scoring is None:
            raise UserError(
                f"{self.name}: the endpoint scores texts only (its chat template is its own): "
                "rank with --plain, or "
                f"--by generation"
            )
        logprobs: list[list[float]] = []
        for continuation in continuations:
            body = _encode(
                {
                    "model": self._model,
                    "prompt": prefix + continuation,
                    # Some servers reject 0; the one generated token lies behind the continuation,
                    # so its offset excludes it below.
                    "max_tokens": 1,
                    "echo": True,
                    "logprobs": 1,
                    "temperature": 0,
                }
            )
            scored = await self._scoring.send_request(body, _read_echo)
            if isinstance(scored, Failure):
                raise UserError(
                    f"{self.name}: no log-probabilities from this endpoint: {scored.message}"
                )
            start, end = len(prefix), len(prefix) + len(continuation)
            # The echo holds the prefix too: tokens are those whose first character lies in the
            # continuation.
            pairs = zip(scored.text_offset, scored.token_logprobs)
            of_continuation = [
                logprob
                for offset, logprob in pairs
                # The first token of a text has no predecessor, hence a null log-probability.
                if start <= offset < end and logprob is not None
            ]
            if not of_continuation:
                raise UserError(
                    f"{self.name}: the endpoint gives no log-probabilities of given text (--by "
                    "generation needs none)"
                )
            logprobs.append(of_continuation)
        return logprobs


class OpenAICompletionsModel(OpenAIModel):
    """A model behind `/completions`, such as gpt-3.5-turbo-instruct.

    The prompt is the text of a single message, or one line `role: text` for each of several. Tools
    are not passed on, and an answer streams as a whole.
    """

    _read_reply = staticmethod(_read_texts)

    def _request_body(
        self, conversation: Conversation, sampling: Sampling, n: int, seed: int, stream: bool
    ) -> bytes:
        plain = replace(sampling, tools=(), logprobs=None)
        body = json.loads(super()._request_body(conversation, plain, n, seed, stream))
        body.pop("messages", None)
        messages = conversation.messages
        if len(messages) == 1:
            prompt = messages[0].content
        else:
            prompt = "\n".join(f"{m.role}: {m.content}" for m in messages) + "\nassistant:"
        return _encode({**body, "prompt": prompt})

    async def stream(
        self, conversation: Conversation, sampling: Sampling
    ) -> AsyncGenerator[str, None]:
        """Yields the whole answer. Raises StreamError where there is none."""
        (answer,) = await self.generate(conversation, replace(sampling, n=1))
        if answer.failure is not None:
            raise StreamError(answer.failure)
        yield answer.text


class _Echo(Struct):
    text_offset: list[int] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)


class _EchoChoice(Struct):
    logprobs: _Echo | None = None


class _EchoCompletion(Struct):
    choices: list[_EchoChoice]


def _read_echo(data: bytes) -> _Echo:
    completion = msgspec.json.decode(data, type=_EchoCompletion)
    if not completion.choices or completion.choices[0].logprobs is None:
        raise ValueError("no log-probabilities")
    return completion.choices[0].logprobs


M = TypeVar("M", bound=OpenAIModel)


def build(args: Args, kind: type[M] = OpenAIModel) -> M:  # type: ignore[assignment]
    """Returns the model of an `openai:` spec, or of another `kind` with the same API."""
    if not args.name:
        raise args.fault("give the model's name: openai:NAME")
    base = validate_url(args, args.text("base_url", "https://api.openai.com/v1")).rstrip("/")
    key = args.api_key(base)
    retry_policy, budget = RetryPolicy.from_args(args), read_budget(args)
    try:
        body = json.loads(args.text("body", "{}"))
    except json.JSONDecodeError as error:
        raise args.fault(f"body is not JSON: {error.msg}") from error
    if not isinstance(body, dict):
        raise args.fault("body is no JSON object")
    api = args.text("api", "chat")
    if api not in ("chat", "completions"):
        raise args.fault(f"api={api}: it is chat or completions")
    paths = ("chat/completions", "completions")
    if api == "completions":
        paths, kind = ("completions", "completions"), OpenAICompletionsModel  # type: ignore[assignment]
    endpoints = [
        Endpoint(
            join_url(base, path),
            key=key,
            headers=bearer_headers(key),
            secrets=find_json_secrets(body),
            retry_policy=retry_policy,
            budget=budget,
        )
        for path in paths
    ]
    return kind(
        args.name,
        *endpoints,
        stream=args.flag("stream"),
        body=body,
        tokens_key=args.text("tokens_key", "max_tokens"),
    )
