"""The route handlers: chat completions, models, moderations, checks, configurations, health,
metrics.

Errors have the OpenAI form. A rail that blocks is an ordinary answer with `finish_reason`
content_filter; a model that fails is 502 or 504; a text that a judge cannot score is flagged, never
passed. Keys, rates and bodies are the pipeline's, before any handler.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import Body, Parameter
from litestar.response import Stream

from truing.core.types import Conversation, Message, Sample
from truing.core.types import Response as ModelResponse
from truing.rails.guarded import GuardedModel
from truing.serve.openai import schemas
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.conversation_memory import check_room
from truing.serve.openai.request_checks import (
    check_moderation_request,
    read_chat_request,
    read_guardrails,
    refuse_continuation,
    require_image_reader,
    take_context,
)
from truing.serve.openai.request_log import record_of
from truing.serve.openai.streaming import FinishedTurn, stream_answer, stream_events


def _json_response(service: ChatService, body: bytes) -> Response[bytes]:
    """Returns a JSON response. Raises RequestRefused (502) for a body that is too large to send."""
    if len(body) > service.admission.limits.response_bytes:
        raise RequestRefused(502, "the answer is larger than this server sends", "upstream_error")
    return Response(body, media_type=MediaType.JSON)


@post("/v1/chat/completions", status_code=200, summary="Answer a conversation", tags=["chat"])
async def chat(
    data: Annotated[schemas.ChatRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """The OpenAI chat API; `guardrails.config_id` selects the rails."""
    service: ChatService = state.chat
    record = record_of(request.scope)
    config = data.config or service.router.default
    continued = await record.stack.enter_async_context(
        service.memory.open(data.guardrails, record.tenant, config or "")
    )
    if continued is not None:
        data.messages = [*continued.earlier, *data.messages]
        check_room(data.messages)
    take_context(data)
    conversation, sampling = read_chat_request(data, service.admission.limits, with_images=True)
    model = await service.select_model(data.config_ids)
    require_image_reader(conversation, model)
    client = read_guardrails(data.guardrails, model, service.admission.limits)
    record.model, record.config = model.name, config
    name = data.model or model.name
    if data.stream and sampling.n > 1:
        raise RequestRefused(400, "n: a stream has one answer", param="n")
    if continued is not None and sampling.n > 1:
        raise RequestRefused(400, "n: a conversation goes on after one answer", param="n")
    # Before a stream begins: its status is 200 from then on.
    await service.take_slot(request)
    if data.stream:
        parts = stream_answer(service, model, (conversation, sampling), data, client, record)
        events = stream_events(service, data, name, parts, FinishedTurn(record, client, continued))
        record.stack.push_async_callback(events.aclose)
        return Stream(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
    answers = await service.generate_answers(
        model, conversation, sampling, client, record, data.explicit_fields
    )
    turn = FinishedTurn(record, client, continued)
    extra = await turn.finish(data, answers[0])
    return _json_response(service, schemas.completion(data, name, answers, extra))


@get("/v1/models", summary="The models that requests may name", tags=["chat"])
async def models(state: State) -> dict[str, Any]:
    """OpenAI's list of models."""
    service: ChatService = state.chat
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": "truing"}
        for name in service.router.names
    ]
    return {"object": "list", "data": rows}


@get("/v1/rails/configs", summary="The rails configurations", tags=["rails"])
async def configs(state: State) -> list[dict[str, str]]:
    """The ids that `guardrails.config_id` takes."""
    service: ChatService = state.chat
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
    record = record_of(request.scope)
    judge = service.judge
    if judge is None:
        raise RequestRefused(404, "this server has no moderation judge: start it with --judge")
    texts = check_moderation_request(data, service.admission.limits)
    sample = Sample(conversation=Conversation(), id="moderation")
    responses = [
        ModelResponse(sample_id="moderation", message=Message("assistant", text)) for text in texts
    ]
    await service.take_slot(request)
    record.model = judge.name
    try:
        async with asyncio.timeout(service.admission.limits.seconds):
            judgements = await asyncio.gather(*(judge.judge(sample, r) for r in responses))
    except TimeoutError:
        raise RequestRefused(504, "no judgement in time", "timeout_error") from None
    flagged = any(judgement.verdict is not False for judgement in judgements)
    record.decision = "flagged" if flagged else "passed"
    return _json_response(service, schemas.moderation(judge, judgements))


@post("/v1/checks", status_code=200, summary="Do the rails allow this?", tags=["rails"])
async def checks(
    data: Annotated[schemas.CheckRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """Runs every stage that the messages contain over all their text; generates no answer.

    `allowed` is null where a stage of the messages, named in `not_run`, has no rails.
    """
    service: ChatService = state.chat
    record = record_of(request.scope)
    chat_request = schemas.ChatRequest(
        data.messages, model=data.model, tools=data.tools, guardrails=data.guardrails
    )
    take_context(chat_request)
    conversation, sampling = read_chat_request(chat_request, service.admission.limits)
    model = await service.select_model(chat_request.config_ids)
    if not isinstance(model, GuardedModel):
        raise RequestRefused(404, "this server has no rails: start it with --rails")
    record.config = chat_request.config or service.router.default
    client = read_guardrails(chat_request.guardrails, model, service.admission.limits)
    refuse_continuation(data.guardrails)
    await service.take_slot(request)
    result = await service.check_conversation(model, conversation, sampling, client, record)
    return _json_response(service, schemas.check(result))


@get(["/", "/health"], summary="Alive, and taking requests", tags=["service"])
async def health(request: Request[Any, Any, State], state: State) -> Response[Any]:
    """503 while the server drains. A browser gets the chat page at `/`, if the server has one."""
    service: ChatService = state.chat
    if service.admission.draining:
        return Response({"status": "draining"}, status_code=503)
    is_browser = "text/html" in request.headers.get("accept", "")
    if service.page is not None and is_browser and request.url.path == "/":
        return service.page.render()
    return Response({"status": "ok"}, status_code=200)


@get("/static/{name:str}", include_in_schema=False)
async def static_file(name: Annotated[str, Parameter()], state: State) -> Response[bytes]:
    """The files of the chat page; their links hold a hash of the contents."""
    service: ChatService = state.chat
    response = service.page.file(name) if service.page is not None else None
    if response is None:
        raise RequestRefused(404, "there is no such file")
    return response


@get("/ready", summary="Should it get requests now?", tags=["service"])
async def ready(state: State) -> Response[dict[str, str]]:
    """503, with the reason, while the server drains or cannot reach what servers share.

    It answers from when models and rails are loaded.
    """
    service: ChatService = state.chat
    obstacle = await service.find_obstacle()
    return Response({"status": obstacle or "ready"}, status_code=503 if obstacle else 200)


@get(
    "/metrics",
    media_type="text/plain; version=0.0.4",
    summary="Prometheus metrics",
    tags=["service"],
)
async def metrics(state: State) -> bytes:
    """Counters and times; no texts, no users."""
    service: ChatService = state.chat
    if service.audit is not None:
        service.metrics.alarm_evidence.set(service.audit.evidence)
    return service.metrics.render()


HANDLERS = (chat, models, configs, moderations, checks, health, ready, static_file, metrics)
