"""The route handlers: chat completions, models, moderations, checks, configurations, health,
metrics.

Errors have the OpenAI form. A rail that blocks is an ordinary answer with `finish_reason`
content_filter; a model that fails is 502 or 504; a text that a judge cannot score is flagged, never
passed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import Body
from litestar.response import Stream
from msgspec.structs import replace

from truing.core.ids import stream_seed
from truing.core.protocols import Judge, Model, StreamingModel
from truing.core.types import Answer, Conversation, Message, Sample, Sampling
from truing.core.types import Response as ModelResponse
from truing.rails.guarded import GuardedModel
from truing.serve.openai import schemas
from truing.serve.openai.admission import AdmissionControl, RequestRefused
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.metrics import ServerMetrics
from truing.serve.openai.model_router import ModelRouter, UnknownConfig
from truing.serve.openai.tracing import TurnTracer

MAX_MODERATION_TEXTS = 256


class ChatService:
    """State shared by the route handlers (stored in app.state.chat)."""

    def __init__(
        self,
        router: ModelRouter,
        admission: AdmissionControl,
        *,
        judge: Judge | None = None,
        audit: HarmAudit | None = None,
        tracer: TurnTracer | None = None,
    ) -> None:
        self.router, self.admission, self.judge = router, admission, judge
        self.audit, self.tracer = audit, tracer
        self.metrics = ServerMetrics()

    def authenticate(self, request: Request[Any, Any, Any]) -> str:
        """Checks the key and rate of a request. Raises RequestRefused.

        Returns an opaque tenant id, so that one API key cannot read another's conversations.
        """
        key = self.admission.check_key(
            request.headers.get("authorization") or request.headers.get("x-api-key")
        )
        self.admission.check_rate(key)
        return hashlib.sha256(key).hexdigest() if key else ""

    def select_model(self, config_id: str | None) -> Model:
        """Returns the model of a request. Raises RequestRefused (404) for an unknown
        configuration.
        """
        try:
            return self.router.select(config_id)
        except UnknownConfig as error:
            raise RequestRefused(404, str(error), "invalid_request_error") from error

    async def generate_answers(
        self,
        model: Model,
        conversation: Conversation,
        sampling: Sampling,
        options: dict[str, Any] | None,
        session: str = "",
        explicit_fields: frozenset[str] | None = None,
    ) -> tuple[Answer, ...]:
        """Returns the answers of a model. Raises RequestRefused at a time-out (504) or a failure of
        the model (502).

        `explicit_fields` are the sampling fields set by the request (defaults do not override the
        configuration).
        """
        started_ns = time.time_ns()
        answers: tuple[Answer, ...]
        try:
            async with asyncio.timeout(self.admission.limits.seconds):
                if isinstance(model, GuardedModel):
                    answers = await self._generate_guarded(
                        model, conversation, sampling, options, session, explicit_fields
                    )
                else:
                    answers = await model.generate(conversation, sampling)
        except TimeoutError:
            seconds = self.admission.limits.seconds
            raise RequestRefused(504, f"no answer in {seconds:.0f} s", "timeout_error") from None
        self.record_answers(model, conversation, answers, started_ns)
        return answers

    async def _generate_guarded(
        self,
        model: GuardedModel,
        conversation: Conversation,
        sampling: Sampling,
        options: dict[str, Any] | None,
        session: str,
        explicit_fields: frozenset[str] | None,
    ) -> tuple[Answer, ...]:
        """Each of the n answers is a turn of its own through all rails."""
        seeds = [sampling.seed]
        if sampling.n > 1:
            seeds = [stream_seed(sampling.seed, i) for i in range(sampling.n)]
            if explicit_fields is not None:
                # A seed in the configuration would make all n answers the same.
                explicit_fields |= {"seed"}
        turns = (
            model.answer(
                conversation,
                replace(sampling, n=1, seed=seed),
                options=options,
                session=session,
                explicit_fields=explicit_fields,
            )
            for seed in seeds
        )
        return tuple(await asyncio.gather(*turns))

    def record_answers(
        self, model: Model, conversation: Conversation, answers: tuple[Answer, ...], started_ns: int
    ) -> None:
        """Traces, counts and audits answers. Raises RequestRefused where one of them failed."""
        if self.tracer is not None:
            for answer in answers:
                self.tracer.record_turn(model.name, answer, started_ns)
        failure = next((a.failure for a in answers if a.failure is not None), None)
        if failure is not None:
            if failure.kind == "options":
                raise RequestRefused(400, failure.message, "invalid_request_error")
            status = 504 if failure.kind == "timeout" else 502
            message = f"{failure.kind}: {failure.message}"
            raise RequestRefused(status, message, "upstream_error")
        self.metrics.count_answers(answers)
        if self.audit is not None:
            self.audit.observe(conversation, answers[0])


def _read_request(data: schemas.ChatRequest, service: ChatService) -> tuple[Conversation, Sampling]:
    try:
        conversation = data.conversation()
    except ValueError as error:
        raise RequestRefused(400, str(error), "invalid_request_error") from error
    return conversation, data.sampling(service.admission.limits.max_tokens)


@post("/v1/chat/completions", status_code=200, summary="Answer a conversation", tags=["chat"])
async def chat(
    data: Annotated[schemas.ChatRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """The OpenAI chat API; `guardrails.config_id` selects the rails."""
    service: ChatService = state.chat
    session = service.authenticate(request)
    conversation, sampling = _read_request(data, service)
    model = service.select_model(data.config)
    name = data.model or model.name
    if data.stream:
        if sampling.n > 1:
            raise RequestRefused(400, "n: a stream has one answer", "invalid_request_error")
        # Once the stream has begun its status is 200: a full queue must be refused before.
        service.admission.check_capacity()
        parts = _stream_answer(service, model, (conversation, sampling), data, session)
        return Stream(_stream_events(service, data, name, parts), media_type="text/event-stream")
    async with service.admission.slot():
        answers = await service.generate_answers(
            model, conversation, sampling, data.options, session, data.explicit_fields
        )
    return Response(schemas.completion(data, name, answers), media_type=MediaType.JSON)


async def _stream_answer(
    service: ChatService,
    model: Model,
    prompt: tuple[Conversation, Sampling],
    data: schemas.ChatRequest,
    session: str,
) -> AsyncIterator[str | Answer]:
    """Yields chunks of text and, from models behind rails, the whole answer at the end.

    A model that cannot stream yields its answer alone.
    """
    started_ns = time.time_ns()
    conversation, sampling = prompt
    if isinstance(model, GuardedModel):
        async for part in model.stream_with_answer(
            conversation,
            sampling,
            options=data.options,
            session=session,
            explicit_fields=data.explicit_fields,
        ):
            if isinstance(part, Answer):
                service.record_answers(model, conversation, (part,), started_ns)
            yield part
    elif isinstance(model, StreamingModel) and not sampling.tools:
        async for text in model.stream(conversation, sampling):
            yield text
    else:
        yield (await service.generate_answers(model, conversation, sampling, None))[0]


async def _stream_events(
    service: ChatService, data: schemas.ChatRequest, name: str, parts: AsyncIterator[str | Answer]
) -> AsyncIterator[bytes]:
    """Yields server-sent events; the last chunk carries the finish reason. A client that leaves
    cancels the work.
    """
    completion_id = schemas.new_completion_id()
    include_usage = bool((data.stream_options or {}).get("include_usage"))
    answer: Answer | None = None
    text_sent = False
    try:
        async with service.admission.slot():
            yield schemas.chunk(completion_id, name, {"role": "assistant", "content": ""})
            async with asyncio.timeout(service.admission.limits.seconds):
                async for part in parts:
                    if isinstance(part, Answer):
                        answer = part
                    else:
                        text_sent = True
                        yield schemas.chunk(completion_id, name, {"content": part})
            if answer is not None and (not text_sent or answer.message.tool_calls):
                yield schemas.chunk(completion_id, name, schemas.delta(answer))
            yield schemas.last_chunk(completion_id, name, data, answer, include_usage)
    except RequestRefused as error:
        yield schemas.error_event(error.message, error.kind)
    except TimeoutError:
        yield schemas.error_event("no answer in time", "timeout_error")
    except Exception as error:  # the stream has begun: the client must learn that it is incomplete
        message = f"the answer broke off: {type(error).__name__}"
        yield schemas.error_event(message, "upstream_error")
        return
    yield b"data: [DONE]\n\n"


@get("/v1/models", summary="The models that requests may name", tags=["chat"])
async def models(request: Request[Any, Any, State], state: State) -> dict[str, Any]:
    """OpenAI's list of models."""
    service: ChatService = state.chat
    service.authenticate(request)
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": "truing"}
        for name in service.router.names
    ]
    return {"object": "list", "data": rows}


@get("/v1/rails/configs", summary="The rails configurations", tags=["rails"])
async def configs(request: Request[Any, Any, State], state: State) -> list[dict[str, str]]:
    """The ids that `guardrails.config_id` takes."""
    service: ChatService = state.chat
    service.authenticate(request)
    return [{"id": config_id} for config_id in service.router.guarded]


@post("/v1/moderations", status_code=200, summary="Judge texts for harm", tags=["moderation"])
async def moderations(
    data: Annotated[schemas.ModerationRequest, Body()],
    request: Request[Any, Any, State],
    state: State,
) -> Response[Any]:
    """OpenAI's moderation API by the served judge; a text that it cannot score is flagged, with the
    reason.
    """
    service: ChatService = state.chat
    service.authenticate(request)
    judge = service.judge
    if judge is None:
        raise RequestRefused(
            404,
            "this server has no moderation judge: start it with --judge",
            "invalid_request_error",
        )
    texts = [data.input] if isinstance(data.input, str) else data.input
    if not 1 <= len(texts) <= MAX_MODERATION_TEXTS:
        message = f"input: from 1 to {MAX_MODERATION_TEXTS} texts"
        raise RequestRefused(400, message, "invalid_request_error")
    sample = Sample(conversation=Conversation(), id="moderation")
    responses = [
        ModelResponse(sample_id="moderation", message=Message("assistant", text)) for text in texts
    ]
    async with service.admission.slot():
        judgements = await asyncio.gather(*(judge.judge(sample, r) for r in responses))
    return Response(schemas.moderation(judge, judgements), media_type=MediaType.JSON)


@post("/v1/checks", status_code=200, summary="Do the rails allow this?", tags=["rails"])
async def checks(
    data: Annotated[schemas.CheckRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """Runs the input rails, or the output rails where the last message is the assistant's;
    generates no answer.
    """
    service: ChatService = state.chat
    service.authenticate(request)
    conversation, sampling = _read_request(schemas.ChatRequest(messages=data.messages), service)
    model = service.select_model(data.guardrails.config_id if data.guardrails else None)
    if not isinstance(model, GuardedModel):
        raise RequestRefused(
            404, "this server has no rails: start it with --rails", "invalid_request_error"
        )
    stages = ["output"] if conversation.last.role == "assistant" else ["input"]
    async with service.admission.slot():
        answers = await service.generate_answers(model, conversation, sampling, {"rails": stages})
    answer = answers[0]
    blocked = any(ruling.ruling == "block" for ruling in answer.rulings)
    allowed = not blocked and answer.finish_reason != "blocked"
    return Response(schemas.check(allowed, answer), media_type=MediaType.JSON)


@get(["/", "/health"], summary="Alive, and taking requests", tags=["service"])
async def health(state: State) -> Response[dict[str, str]]:
    """503 while the server drains."""
    service: ChatService = state.chat
    if service.admission.draining:
        return Response({"status": "draining"}, status_code=503)
    return Response({"status": "ok"}, status_code=200)


@get("/metrics", media_type=MediaType.TEXT, summary="Prometheus metrics", tags=["service"])
async def metrics(state: State) -> bytes:
    """Counters and times; no texts, no users."""
    service: ChatService = state.chat
    service.metrics.in_flight.set(service.admission.in_flight)
    if service.audit is not None:
        service.metrics.alarm_evidence.set(service.audit.evidence)
    return service.metrics.render()


HANDLERS = (chat, models, configs, moderations, checks, health, metrics)
