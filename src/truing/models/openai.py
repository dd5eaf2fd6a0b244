"""Any OpenAI-compatible chat endpoint: `openai:NAME,base_url=http://host:port/v1`.

Arguments: `base_url`, `api_key_env` (the name of the variable, never the key), `stream=true`, `timeout`, `retries`,
`budget_requests`, `budget_tokens`, `body` (a JSON object that is merged into each request; a null takes a key out),
`tokens_key` (`max_tokens`, or `max_completion_tokens` where a server wants that).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Failure, Lineage, Sampling, stream_seed
from truing.http.client import Endpoint, read_budget, validate_url
from truing.http.retry import RetryPolicy
from truing.models.openai_format import Assembly, Completion, answers_of
from truing.specs.resolve import Args

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Completion).decode


def _read(data: bytes) -> Completion:
    made = _decode(data)
    if not made.choices:
        raise ValueError("no choices")
    return made


class OpenAIModel:
    """A model behind `/chat/completions` (and, for log-probabilities of given text, `/completions`)."""

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
        extra = json.dumps(self._body, sort_keys=True)
        self.lineage = Lineage(
            name=self.name, hash=digest("openai", model, str(endpoint.url), extra)
        )

    def _request(
        self, conversation: Conversation, sampling: Sampling, n: int, seed: int, stream: bool
    ) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": conversation.to_openai(),
            self._tokens_key: sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": seed & 0x7FFFFFFF,
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
            body = {k: v for k, v in {**body, **self._body}.items() if v is not None}
        return _encode(body)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers of one request; a server that gives fewer is asked for the rest."""
        answers: list[Answer] = []
        while (left := sampling.n - len(answers)) > 0:
            seed = sampling.seed if not answers else stream_seed(sampling.seed, len(answers))
            if self._stream:
                got = [await self._streamed(conversation, sampling, seed)]
            else:
                made = await self.endpoint.send_request(
                    self._request(conversation, sampling, left, seed, False), _read
                )
                if isinstance(made, Failure):
                    failed = Answer(
                        message=Answer.of("").message, finish_reason="error", failure=made
                    )
                    return (*answers, *[failed] * left)
                got = answers_of(made)
                if made.usage is not None:
                    self.endpoint.budget.spend_tokens(made.usage.total)
            answers += got[:left]
        return tuple(answers)

    async def _streamed(self, conversation: Conversation, sampling: Sampling, seed: int) -> Answer:
        for last in (False, True):
            assembly = Assembly()
            try:
                async for data in self.endpoint.stream(
                    self._request(conversation, sampling, 1, seed, True)
                ):
                    assembly.add(data)
            except (ConnectionError, ValueError, msgspec.MsgspecError) as error:
                if last or self.endpoint.retry_policy.retries == 0:
                    kind = "dropped" if isinstance(error, ConnectionError) else "unparsable"
                    return Answer.failed(kind, " ".join(str(error).split())[:300])
                continue
            answer = assembly.answer()
            self.endpoint.budget.spend_tokens(
                answer.usage.prompt_tokens + answer.usage.completion_tokens
            )
            return answer
        raise AssertionError("unreachable")

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """The text as it comes; raises ConnectionError when the endpoint breaks off."""
        assembly = Assembly()
        async for data in self.endpoint.stream(
            self._request(conversation, sampling, 1, sampling.seed, True)
        ):
            piece = assembly.add(data)
            if piece:
                yield piece

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """By `/completions` with echo; for texts alone, as the endpoint's chat template is not known here."""
        if not isinstance(prefix, str) or self._scoring is None:
            raise UserError(
                f"{self.name}: the endpoint scores texts only (its chat template is its own): rank with --plain, or "
                f"--by generation"
            )
        made: list[list[float]] = []
        for continuation in continuations:
            body = _encode(
                {
                    "model": self._model,
                    "prompt": prefix + continuation,
                    "max_tokens": 1,
                    "echo": True,
                    "logprobs": 1,
                    "temperature": 0,
                }
            )
            scored = await self._scoring.send_request(body, _read_scored)
            if isinstance(scored, Failure):
                raise UserError(
                    f"{self.name}: no log-probabilities from this endpoint: {scored.message}"
                )
            start, end = len(prefix), len(prefix) + len(continuation)
            pairs = zip(scored.text_offset, scored.token_logprobs)
            found = [p for at, p in pairs if start <= at < end and p is not None]
            if not found:
                raise UserError(
                    f"{self.name}: the endpoint gives no log-probabilities of given text (--by generation needs none)"
                )
            made.append(found)
        return made


class _Echo(Struct):
    text_offset: list[int] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)


class _EchoChoice(Struct):
    logprobs: _Echo | None = None


class _EchoCompletion(Struct):
    choices: list[_EchoChoice]


def _read_scored(data: bytes) -> _Echo:
    made = msgspec.json.decode(data, type=_EchoCompletion)
    if not made.choices or made.choices[0].logprobs is None:
        raise ValueError("no log-probabilities")
    return made.choices[0].logprobs


M = TypeVar("M", bound=OpenAIModel)


def build(args: Args, kind: type[M] = OpenAIModel) -> M:  # type: ignore[assignment]
    """The model of an `openai:` spec (or of another kind that speaks the same)."""
    if not args.name:
        raise args.fault("give the model's name: openai:NAME")
    base = validate_url(args, args.text("base_url", "https://api.openai.com/v1")).rstrip("/")
    key = args.secret()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    retry_policy, budget = RetryPolicy.from_args(args), read_budget(args)
    try:
        body = json.loads(args.text("body", "{}"))
    except json.JSONDecodeError as error:
        raise args.fault(f"body is not JSON: {error.msg}") from error
    if not isinstance(body, dict):
        raise args.fault("body is no JSON object")
    made = [
        Endpoint(
            f"{base}/{path}", key=key, headers=headers, retry_policy=retry_policy, budget=budget
        )
        for path in ("chat/completions", "completions")
    ]
    return kind(
        args.name,
        *made,
        stream=args.flag("stream"),
        body=body,
        tokens_key=args.text("tokens_key", "max_tokens"),
    )
