"""The OpenAI-compatible doors: chat, models, moderations, checks, configurations, health, metrics.

Errors have the OpenAI form. A rail that blocks is an ordinary answer with `finish_reason` content_filter; a model that
fails is 502 or 504; what a judge cannot tell is flagged, never passed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Stream
from msgspec.structs import replace

from truing.core.protocols import Judge, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sample, Sampling, stream_seed
from truing.core.types import Response as Given
from truing.rails.guarded import Guarded
from truing.serve.openai import schemas
from truing.serve.openai.admission import Gate, Refused
from truing.serve.openai.audit import Audit
from truing.serve.openai.metrics import Metrics
from truing.serve.openai.model_router import Desk, Unknown
from truing.serve.openai.tracing import Traces


class Doors:
    """What the handlers share: kept in the app's state under `doors`."""

    def __init__(
        self,
        desk: Desk,
        gate: Gate,
        *,
        judge: Judge | None = None,
        audit: Audit | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.desk, self.gate, self.judge, self.audit, self.traces = desk, gate, judge, audit, traces
        self.metrics = Metrics()

    def admit(self, request: Request[Any, Any, Any]) -> str:
        """Key and rate; `Refused` otherwise. Gives what keeps the conversations of one key from those of another."""
        key = self.gate.check_key(
            request.headers.get("authorization") or request.headers.get("x-api-key")
        )
        self.gate.check_rate(key)
        return hashlib.sha256(key).hexdigest() if key else ""

    def pick(self, config: str | None) -> Model:
        """The model of a request; `Refused` 404 for an unknown configuration."""
        try:
            return self.desk.pick(config)
        except Unknown as error:
            raise Refused(404, str(error), "invalid_request_error") from error

    async def answers(
        self,
        model: Model,
        conversation: Conversation,
        sampling: Sampling,
        options: dict[str, Any] | None,
        session: str = "",
        named: frozenset[str] | None = None,
    ) -> tuple[Answer, ...]:
        """The answers within the time limit; `Refused` where there are none. `named`: what of the sampling the request names."""
        given: tuple[Answer, ...]
        began = time.time_ns()
        try:
            async with asyncio.timeout(self.gate.limits.seconds):
                if isinstance(model, Guarded):
                    seeds = (
                        [stream_seed(sampling.seed, i) for i in range(sampling.n)]
                        if sampling.n > 1
                        else [sampling.seed]
                    )
                    if named is not None and sampling.n > 1:
                        named |= {
                            "seed"
                        }  # a seed of the configuration would make all of them the same
                    more: dict[str, Any] = {"options": options, "session": session, "asked": named}
                    given = tuple(
                        await asyncio.gather(
                            *(
                                model.answer(conversation, replace(sampling, n=1, seed=s), **more)
                                for s in seeds
                            )
                        )
                    )
                else:
                    given = await model.generate(conversation, sampling)
        except TimeoutError:
            raise Refused(
                504, f"no answer in {self.gate.limits.seconds:.0f} s", "timeout_error"
            ) from None
        self.heard(model, conversation, given, began)
        return given

    def heard(
        self, model: Model, conversation: Conversation, given: tuple[Answer, ...], began: int
    ) -> None:
        """Counts and traces answers and lets the audit hear them; `Refused` where one failed."""
        if self.traces is not None:
            for answer in given:
                self.traces.turn(model.name, answer, began)
        failure = next((a.failure for a in given if a.failure is not None), None)
        if failure is not None:
            if failure.kind == "options":
                raise Refused(400, failure.message, "invalid_request_error")
            raise Refused(
                504 if failure.kind == "timeout" else 502,
                f"{failure.kind}: {failure.message}",
                "upstream_error",
            )
        self.metrics.count(given)
        if self.audit is not None:
            self.audit.hear(conversation, given[0])


def _read(data: schemas.ChatRequest, doors: Doors) -> tuple[Conversation, Sampling]:
    try:
        conversation = data.conversation()
    except ValueError as error:
        raise Refused(400, str(error), "invalid_request_error") from error
    return conversation, data.sampling(doors.gate.limits.max_tokens)


@post("/v1/chat/completions", status_code=200, summary="Answer a conversation", tags=["chat"])
async def chat(
    data: schemas.ChatRequest, request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """The OpenAI chat API; `guardrails.config_id` picks the rails."""
    doors: Doors = state.doors
    session = doors.admit(request)
    conversation, sampling = _read(data, doors)
    model = doors.pick(data.config)
    name = data.model or model.name
    if data.stream:
        if sampling.n > 1:
            raise Refused(400, "n: a stream gives one answer", "invalid_request_error")
        doors.gate.check_room()
        pieces = _pieces(doors, model, (conversation, sampling), data, session)
        return Stream(_events(doors, data, name, pieces), media_type="text/event-stream")
    async with doors.gate.slot():
        given = await doors.answers(
            model, conversation, sampling, data.options, session, data.named
        )
    return Response(schemas.completion(data, name, given), media_type=MediaType.JSON)


async def _pieces(
    doors: Doors,
    model: Model,
    asked: tuple[Conversation, Sampling],
    data: schemas.ChatRequest,
    session: str,
) -> AsyncIterator[str | Answer]:
    """The text piece by piece and last the answer, where the model gives one; or the answer alone."""
    began = time.time_ns()
    if isinstance(model, Guarded):
        async for piece in model.streamed(
            *asked, options=data.options, session=session, asked=data.named
        ):
            if isinstance(piece, Answer):
                doors.heard(model, asked[0], (piece,), began)
            yield piece
    elif isinstance(model, StreamingModel) and not asked[1].tools:
        async for text in model.stream(*asked):
            yield text
    else:
        yield (await doors.answers(model, *asked, None))[0]


async def _events(
    doors: Doors, data: schemas.ChatRequest, name: str, pieces: AsyncIterator[str | Answer]
) -> AsyncIterator[bytes]:
    """Server-sent events; a client that leaves cancels the work. The last event carries the finish reason."""
    id_ = schemas.new_id()
    usage = bool((data.stream_options or {}).get("include_usage"))
    answer: Answer | None = None
    shown = False
    try:
        async with doors.gate.slot():
            yield schemas.chunk(id_, name, {"role": "assistant", "content": ""})
            async with asyncio.timeout(doors.gate.limits.seconds):
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        answer = piece
                    else:
                        shown = True
                        yield schemas.chunk(id_, name, {"content": piece})
            if answer is not None and (not shown or answer.message.tool_calls):
                yield schemas.chunk(id_, name, schemas.delta(answer))
            yield schemas.last_chunk(id_, name, data, answer, usage)
    except Refused as error:
        yield b"data: " + schemas.error_body(error.message, error.kind) + b"\n\n"
    except TimeoutError:
        yield b"data: " + schemas.error_body("no answer in time", "timeout_error") + b"\n\n"
    except Exception as error:  # a stream has begun: the client must learn that it is not whole
        yield (
            b"data: "
            + schemas.error_body(f"the answer broke off: {type(error).__name__}", "upstream_error")
            + b"\n\n"
        )
        return
    yield b"data: [DONE]\n\n"


@get("/v1/models", summary="The models that requests may name", tags=["chat"])
async def models(request: Request[Any, Any, State], state: State) -> dict[str, Any]:
    """OpenAI's list."""
    doors: Doors = state.doors
    doors.admit(request)
    made = [
        {"id": n, "object": "model", "created": 0, "owned_by": "truing"} for n in doors.desk.names
    ]
    return {"object": "list", "data": made}


@get("/v1/rails/configs", summary="The rails configurations", tags=["rails"])
async def configs(request: Request[Any, Any, State], state: State) -> list[dict[str, str]]:
    """Their ids, as `guardrails.config_id` takes them."""
    doors: Doors = state.doors
    doors.admit(request)
    return [{"id": name} for name in doors.desk.guarded]


@post("/v1/moderations", status_code=200, summary="Judge texts for harm", tags=["moderation"])
async def moderations(
    data: schemas.ModerationRequest, request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """OpenAI's moderation API by the served judge; what it cannot judge is flagged and says why."""
    doors: Doors = state.doors
    doors.admit(request)
    if doors.judge is None:
        raise Refused(
            404,
            "this server has no moderation judge: start it with --judge",
            "invalid_request_error",
        )
    texts = [data.input] if isinstance(data.input, str) else data.input
    if not 1 <= len(texts) <= 256:
        raise Refused(400, "input: from 1 to 256 texts", "invalid_request_error")
    judge = doors.judge
    empty = Sample(conversation=Conversation(), id="moderation")
    async with doors.gate.slot():
        found = await asyncio.gather(
            *(
                judge.judge(empty, Given(sample_id="moderation", message=Message("assistant", t)))
                for t in texts
            )
        )
    return Response(schemas.moderation(judge, found), media_type=MediaType.JSON)


@post("/v1/checks", status_code=200, summary="Do the rails allow this?", tags=["rails"])
async def checks(
    data: schemas.CheckRequest, request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """Runs the input rails, and with a last assistant message the output rails on it; no answer is generated."""
    doors: Doors = state.doors
    doors.admit(request)
    conversation, sampling = _read(schemas.ChatRequest(messages=data.messages), doors)
    model = doors.pick(data.guardrails.config_id if data.guardrails else None)
    if not isinstance(model, Guarded):
        raise Refused(
            404, "this server has no rails: start it with --rails", "invalid_request_error"
        )
    stages = ["output"] if conversation.last.role == "assistant" else ["input"]
    async with doors.gate.slot():
        answer = (await doors.answers(model, conversation, sampling, {"rails": stages}))[0]
    allowed = (
        not any(r.ruling == "block" for r in answer.rulings) and answer.finish_reason != "blocked"
    )
    return Response(schemas.check(allowed, answer), media_type=MediaType.JSON)


@get(["/", "/health"], summary="Alive, and taking requests", tags=["service"])
async def health(state: State) -> Response[dict[str, str]]:
    """503 while the server drains."""
    doors: Doors = state.doors
    draining = doors.gate.draining
    return Response(
        {"status": "draining" if draining else "ok"}, status_code=503 if draining else 200
    )


@get("/metrics", media_type=MediaType.TEXT, summary="Prometheus metrics", tags=["service"])
async def metrics(state: State) -> bytes:
    """Counters and times; no text, no user."""
    doors: Doors = state.doors
    doors.metrics.busy.set(doors.gate.busy)
    if doors.audit is not None:
        doors.metrics.alarm.set(doors.audit.evidence)
    return doors.metrics.page()


HANDLERS = (chat, models, configs, moderations, checks, health, metrics)
