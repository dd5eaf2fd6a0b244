"""The route of OpenAI's Responses API: the same turns, rails and bounds as chat completions.

`previous_response_id` continues a response that this server has stored, for the same API key and
configuration; without a store of threads (`--threads`) it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from litestar import MediaType, Request, Response, post
from litestar.datastructures import State
from litestar.params import Body
from litestar.response import Stream
from msgspec import Struct

from truing.core.types import Answer, Conversation
from truing.serve.openai import schemas
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.conversation_memory import ContinuedConversation
from truing.serve.openai.request_checks import (
    ClientTurn,
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
from truing.serve.openai.streaming import bounded_events, stream_answer, timed_parts


class OpenTurn(Struct, frozen=True):
    """What remains to be done when the answer of a request is there; `stored` keeps it."""

    turn: ResponsesTurn
    client: ClientTurn
    stored: ContinuedConversation | None

    async def finish(self, answer: Answer) -> dict[str, Any] | None:
        """Stores the response; returns what it says of the rails."""
        if self.stored is not None and answer.failure is None:
            answered_turns = Conversation((answer.message,)).to_openai()
            await self.stored.save([*self.turn.earlier, *self.turn.own, *answered_turns])
        return schemas.guardrails_fields(self.turn.chat, answer, self.client.extra_fields())


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
    record.model, record.config = model.name, turn.chat.config or service.router.default
    is_stored = service.memory.store is not None and data.store is not False
    writer = ResponseWriter(data, data.model or model.name, is_stored=is_stored)
    stored = None
    if is_stored:
        key = _store_key(service, data, record, writer.response_id)
        stored = ContinuedConversation(service.memory, key, is_thread=True)
        stored.check_room([*turn.earlier, *turn.own])
    open_turn = OpenTurn(turn, client, stored)
    await service.take_slot(request)
    if data.stream:
        prompt = (conversation, sampling)
        parts = stream_answer(service, model, prompt, turn.chat, client, record)
        events = bounded_events(
            service, _events(service, writer, parts, open_turn), parts, record, writer.error
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
    service: ChatService,
    writer: ResponseWriter,
    parts: AsyncGenerator[str | Answer, None],
    turn: OpenTurn,
) -> AsyncGenerator[bytes, None]:
    """Yields the events of a response; text comes only after the rails have passed it."""
    answer: Answer | None = None
    texts: list[str] = []
    for event in writer.start():
        yield event
    async for part in timed_parts(service, parts):
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
    service: ChatService, data: ResponsesRequest, record: RequestRecord
) -> Rows:
    """Returns the messages up to the response that a request goes on after."""
    if data.previous_response_id is None:
        return []
    store = service.memory.store
    if store is None:
        reason = "this server keeps no responses (--threads): send the earlier items in input"
        raise refuse("previous_response_id", reason)
    key = _store_key(service, data, record, data.previous_response_id)
    rows = (await store.load(key)).rows
    if not rows:
        reason = "no such response of this key and configuration"
        raise refuse("previous_response_id", reason)
    return rows


def _store_key(
    service: ChatService, data: ResponsesRequest, record: RequestRecord, response_id: str
) -> str:
    """Returns the key of a response in the store: the same id under another API key is another."""
    ids = schemas.ChatRequest([], guardrails=data.guardrails).config or service.router.default
    text = json.dumps([record.tenant, ids or "", "response", response_id]).encode()
    return hashlib.sha256(text).hexdigest()


HANDLERS = (responses,)
