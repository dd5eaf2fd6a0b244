"""The route of OpenAI's Responses API: the same turns, rails and bounds as chat completions.

`previous_response_id` continues a response that this server has stored, for the same API key and
configuration; without a store of threads (`--threads`) it is refused. What is stored its key can
read again (GET) and delete.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from litestar import MediaType, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.params import Body, Parameter
from litestar.response import Stream
from msgspec import Struct

from truing.core.types import Answer, Conversation
from truing.serve.openai import schemas
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.conversation_memory import check_room, thread_key
from truing.serve.openai.request_checks import (
    ClientTurn,
    check_name,
    read_chat_request,
    read_guardrails,
    refuse,
)
from truing.serve.openai.request_log import RequestRecord, record_of
from truing.serve.openai.responses_body import ResponseWriter
from truing.serve.openai.responses_request import (
    ResponsesRequest,
    ResponsesTurn,
    Rows,
    name_own_field,
    read_turn,
)
from truing.serve.openai.stored_threads import ThreadKey, ThreadStore
from truing.serve.openai.streaming import bounded_events, stream_answer, timed_parts

_NO_STORE = "this server keeps no responses (--threads)"


class OpenTurn(Struct, frozen=True):
    """What remains to be done when the answer of a request is there.

    `store` keeps the response for an API key (`tenant`) and a configuration; None: it is not kept.
    """

    turn: ResponsesTurn
    client: ClientTurn
    writer: ResponseWriter
    store: ThreadStore | None
    tenant: str
    config: str

    async def finish(self, answer: Answer) -> dict[str, Any] | None:
        """Stores the response; returns what it says of the rails."""
        fields = self.client.extra_fields()
        guardrails = schemas.guardrails_fields(self.turn.chat, answer, fields)
        if self.store is not None and answer.failure is None:
            answered_turns = Conversation((answer.message,)).to_openai()
            document = {
                "messages": [*self.turn.earlier, *self.turn.own, *answered_turns],
                "context": self.client.context,
                "config": self.config,
                "response": self.writer.body(answer, guardrails),
            }
            key = _response_key(self.tenant, self.writer.response_id)
            await self.store.save(key, document, 0)
        return guardrails


@post("/v1/responses", status_code=200, summary="Answer a conversation", tags=["chat"])
async def responses(
    data: Annotated[ResponsesRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[Any]:
    """The OpenAI Responses API; `guardrails.config_id` selects the rails."""
    service: ChatService = state.chat
    record = record_of(request.scope)
    limits = service.admission.limits
    _refuse_continuation(data)
    earlier = await _load_earlier(service, data, record)
    turn = read_turn(data, earlier, limits)
    try:
        conversation, sampling = read_chat_request(turn.chat, limits)
    except RequestRefused as error:
        raise name_own_field(error, turn) from error
    model = await service.select_model(turn.chat.config_ids)
    client = read_guardrails(data.guardrails, model, limits)
    config = turn.chat.config or service.router.default
    record.model, record.config = model.name, config
    store = service.memory.store if data.store is not False else None
    if store is not None:
        check_room([*turn.earlier, *turn.own])
    writer = ResponseWriter(data, data.model or model.name, is_stored=store is not None)
    open_turn = OpenTurn(turn, client, writer, store, record.tenant, config or "")
    await service.take_slot(request)
    if data.stream:
        prompt = (conversation, sampling)
        parts = stream_answer(service, model, prompt, turn.chat, client, record)
        events = bounded_events(
            service, _events(service, parts, open_turn), parts, record, writer.error
        )
        record.stack.push_async_callback(events.aclose)
        return Stream(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
    answers = await service.generate_answers(
        model, conversation, sampling, client, record, turn.chat.explicit_fields
    )
    guardrails = await open_turn.finish(answers[0])
    body = schemas.encode_json(writer.body(answers[0], guardrails))
    if len(body) > limits.response_bytes:
        raise RequestRefused(502, "the answer is larger than this server sends", "upstream_error")
    return Response(body, media_type=MediaType.JSON)


async def _events(
    service: ChatService, answer_parts: AsyncGenerator[str | Answer, None], turn: OpenTurn
) -> AsyncGenerator[bytes, None]:
    """Yields the events of a response; text comes only after the rails have passed it."""
    writer = turn.writer
    answer: Answer | None = None
    texts: list[str] = []
    for event in writer.start():
        yield event
    async for part in timed_parts(service, answer_parts):
        if isinstance(part, Answer):
            answer = part
            continue
        if not texts:
            for event in writer.start_message():
                yield event
        texts.append(part)
        yield writer.delta(part)
    if answer is None:
        answer = Answer.of("".join(texts))
    guardrails = await turn.finish(answer)
    for event in writer.end(answer, guardrails):
        yield event


def _refuse_continuation(data: ResponsesRequest) -> None:
    for name in ("thread_id", "state"):
        if data.guardrails is not None and getattr(data.guardrails, name) is not None:
            raise refuse(f"guardrails.{name}", "here previous_response_id goes on after a response")


async def _load_earlier(
    service: ChatService, request: ResponsesRequest, record: RequestRecord
) -> Rows:
    """Returns the messages up to the response that a request goes on after.

    The variables of that turn stay, unless the request sets them anew.
    """
    if request.previous_response_id is None:
        return []
    store = service.memory.store
    if store is None:
        raise refuse("previous_response_id", f"{_NO_STORE}: send the earlier items in input")
    check_name("previous_response_id", request.previous_response_id, service.admission.limits)
    stored = await store.load(_response_key(record.tenant, request.previous_response_id))
    config = schemas.ChatRequest([], guardrails=request.guardrails).config or service.router.default
    if not stored.version or stored.document["config"] != (config or ""):
        reason = "no such response of this key and configuration"
        raise refuse("previous_response_id", reason)
    if stored.document["context"]:
        request.guardrails = request.guardrails or schemas.GuardrailsRequest()
        request.guardrails.context = {
            **stored.document["context"],
            **(request.guardrails.context or {}),
        }
    return stored.rows


@get("/v1/responses/{response_id:str}", summary="A stored response", tags=["chat"])
async def stored_response(
    response_id: Annotated[str, Parameter()], request: Request[Any, Any, State], state: State
) -> Response[bytes]:
    """The response as it was sent to this API key; 404 for another key's, and after its time."""
    store, key = _find_response(state.chat, request, response_id)
    if request.query_params.get("stream") == "true":
        raise refuse("stream", "a stored response is sent whole")
    stored = await store.load(key)
    if not stored.version:
        raise _unknown_response()
    return Response(schemas.encode_json(stored.document["response"]), media_type=MediaType.JSON)


@delete(
    "/v1/responses/{response_id:str}", status_code=200, summary="Delete a response", tags=["chat"]
)
async def delete_response(
    response_id: Annotated[str, Parameter()], request: Request[Any, Any, State], state: State
) -> dict[str, Any]:
    """Deletes a stored response of this API key, with the conversation up to it."""
    store, key = _find_response(state.chat, request, response_id)
    if not await store.delete(key):
        raise _unknown_response()
    return {"id": response_id, "object": "response", "deleted": True}


def _find_response(
    service: ChatService, request: Request[Any, Any, State], response_id: str
) -> tuple[ThreadStore, ThreadKey]:
    """Returns the store, and the key of a response in it; RequestRefused (404) without a store."""
    if service.memory.store is None:
        raise RequestRefused(404, _NO_STORE, param="response_id")
    check_name("response_id", response_id, service.admission.limits)
    return service.memory.store, _response_key(record_of(request.scope).tenant, response_id)


def _unknown_response() -> RequestRefused:
    return RequestRefused(404, "this key has no such response", param="response_id")


def _response_key(tenant: str, response_id: str) -> ThreadKey:
    """Returns the key of a response in the store."""
    # Three names: a thread of the chat route has two, whatever its configuration is called.
    return thread_key(tenant, "", "response", response_id)


HANDLERS = (responses, stored_response, delete_response)
