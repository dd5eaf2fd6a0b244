"""Streams of answers as server-sent events: bounded in time and bytes, ended when the client
leaves, and audited and counted like any other answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from msgspec import Struct

from truing.core.protocols import Model, StreamingModel
from truing.core.types import Answer, Conversation, Sampling
from truing.rails.guarded import GuardedModel
from truing.serve.openai import schemas
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService, answer_for_client
from truing.serve.openai.conversation_memory import ContinuedConversation
from truing.serve.openai.request_checks import ClientTurn
from truing.serve.openai.request_log import RequestRecord

Prompt = tuple[Conversation, Sampling]


class FinishedTurn(Struct, frozen=True):
    """What remains to be done when the answer of a request is there."""

    record: RequestRecord
    client: ClientTurn
    continued: ContinuedConversation | None = None

    async def finish(self, request: schemas.ChatRequest, answer: Answer) -> dict[str, Any]:
        """Saves the conversation that goes on; returns further fields of `guardrails`."""
        extra = self.client.extra_fields()
        if self.continued is not None and answer.failure is None:
            rows = [*request.messages, *Conversation((answer.message,)).to_openai()]
            if self.client.context:
                rows.insert(0, {"role": "context", "content": self.client.context})
            extra |= await self.continued.save(rows)
        return extra


async def stream_answer(
    service: ChatService,
    model: Model,
    prompt: Prompt,
    request: schemas.ChatRequest,
    client: ClientTurn,
    record: RequestRecord,
) -> AsyncGenerator[str | Answer, None]:
    """Yields chunks of text, and last the whole answer.

    A model that cannot stream yields its answer alone. The answer is recorded (audit, metrics,
    log) also where the stream ends early: what the client has seen counts.
    """
    started_ns = time.time_ns()
    conversation, sampling = prompt
    if not isinstance(model, GuardedModel) and (
        sampling.tools or not isinstance(model, StreamingModel)
    ):
        yield (await service.generate_answers(model, conversation, sampling, client, record))[0]
        return
    sent: list[str] = []
    answer: Answer | None = None
    try:
        async with _closing(_model_parts(model, prompt, request, client, record)) as parts:
            async for part in parts:
                if isinstance(part, Answer):
                    answer = part
                else:
                    if not sent:
                        record.first_text_ms = 1000 * record.seconds
                        service.metrics.first_text.observe(record.seconds)
                    sent.append(part)
                    yield part
        if answer is None:
            answer = Answer.of("".join(sent))
    finally:
        if answer is None and sent:
            # An audit that a client could escape by leaving before the last word would see nothing.
            partial = Answer.of("".join(sent), finish_reason="error")
            service.record_answers(model, conversation, (partial,), record, started_ns)
    service.record_answers(model, conversation, (answer,), record, started_ns)
    yield answer_for_client(model, answer)


@asynccontextmanager
async def _closing(
    parts: AsyncIterator[str | Answer],
) -> AsyncIterator[AsyncIterator[str | Answer]]:
    """Closes an iterator that can be closed: its model stops, not only its reader."""
    try:
        yield parts
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()


async def stream_events(
    service: ChatService,
    request: schemas.ChatRequest,
    name: str,
    parts: AsyncGenerator[str | Answer, None],
    turn: FinishedTurn,
) -> AsyncGenerator[bytes, None]:
    """Yields the events of a chat completion; the last chunk carries the finish reason.

    Only a complete answer is followed by ``[DONE]``. Closing this generator closes `parts`.
    """
    events = _answer_events(service, request, name, parts, turn)
    async for event in bounded_events(
        service, events, parts, turn.record, schemas.error_event, b"data: [DONE]\n\n"
    ):
        yield event


async def bounded_events(
    service: ChatService,
    events: AsyncIterator[bytes],
    parts: AsyncGenerator[str | Answer, None],
    record: RequestRecord,
    error_event: Callable[[str, str], bytes],
    end: bytes = b"",
) -> AsyncGenerator[bytes, None]:
    """Yields server-sent events within the bound of bytes, and `end` after the last of them.

    An error is an event of its own, `error_event(message, kind)`, and ends the stream. Closing this
    generator closes `parts`, from which the events are made.
    """
    async with aclosing(parts):
        try:
            size = 0
            async for event in events:
                size += len(event)
                if size > service.admission.limits.response_bytes:
                    raise RequestRefused(
                        502, "the answer is longer than this server sends", "upstream_error"
                    )
                yield event
        except RequestRefused as error:
            refusal = error
        except TimeoutError:
            refusal = RequestRefused(504, "no answer in time", "timeout_error")
        except Exception as error:
            # Only the type: the message may hold text that the rails would have withheld.
            message = f"the answer broke off: {type(error).__name__}"
            refusal = RequestRefused(502, message, "upstream_error")
        else:
            if end:
                yield end
            return
        record.error = refusal.kind
        service.metrics.broken_streams.labels(refusal.kind).inc()
        yield error_event(refusal.message, refusal.kind)


async def timed_parts(
    service: ChatService, parts: AsyncGenerator[str | Answer, None]
) -> AsyncGenerator[str | Answer, None]:
    """Yields the parts of an answer. Raises TimeoutError after the seconds of an answer."""
    deadline = asyncio.get_running_loop().time() + service.admission.limits.seconds
    while True:
        # The time-out covers the wait for the model alone: one around a `yield` would cancel
        # whatever the reader of this generator does meanwhile.
        async with asyncio.timeout_at(deadline):
            part = await anext(parts, None)
        if part is None:
            return
        # A model that never waits gives the time-out no moment to end it.
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError
        yield part


async def _answer_events(
    service: ChatService,
    request: schemas.ChatRequest,
    name: str,
    answer_parts: AsyncGenerator[str | Answer, None],
    turn: FinishedTurn,
) -> AsyncGenerator[bytes, None]:
    completion_id = schemas.new_completion_id()
    include_usage = bool((request.stream_options or {}).get("include_usage"))
    answer: Answer | None = None
    text_sent = False
    yield schemas.chunk(completion_id, name, {"role": "assistant", "content": ""})
    async for part in timed_parts(service, answer_parts):
        if isinstance(part, Answer):
            answer = part
        else:
            text_sent = True
            yield schemas.chunk(completion_id, name, {"content": part})
    if answer is not None and (not text_sent or answer.message.tool_calls):
        yield schemas.chunk(completion_id, name, schemas.delta(answer))
    extra = await turn.finish(request, answer) if answer is not None else None
    yield schemas.last_chunk(completion_id, name, request, answer, include_usage, extra)


def _model_parts(
    model: Model,
    prompt: Prompt,
    request: schemas.ChatRequest,
    client: ClientTurn,
    record: RequestRecord,
) -> AsyncIterator[str | Answer]:
    conversation, sampling = prompt
    if isinstance(model, GuardedModel):
        return model.stream_with_answer(
            conversation,
            sampling,
            options=client.options,
            context=client.context,
            session=record.tenant,
            explicit_fields=request.explicit_fields,
            record=client.record,
        )
    if isinstance(model, StreamingModel):
        return model.stream(conversation, sampling)
    raise TypeError(f"{model.name} does not stream")
