"""The bodies and stream events of OpenAI's Responses API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from truing.core.types import Answer, ToolCall
from truing.serve.openai import schemas
from truing.serve.openai.responses_request import ResponsesRequest

# Finish reasons of an answer that is not whole -> why.
_INCOMPLETE = {"content_filter": "content_filter", "length": "max_output_tokens"}


def new_response_id() -> str:
    """Returns a random id, `resp_...`."""
    return f"resp_{secrets.token_hex(24)}"


class ResponseWriter:
    """Writes one response: its whole body, or its events, which are numbered."""

    def __init__(self, request: ResponsesRequest, model: str, *, is_stored: bool) -> None:
        self.request, self.model, self.is_stored = request, model, is_stored
        self.response_id = new_response_id()
        self._message_id = f"msg_{secrets.token_hex(24)}"
        self._created = int(time.time())
        self._number = 0
        self._message_started = False  # its item has an index, whatever the answer ends as

    # -- bodies ----------------------------------------------------------------------------------

    def body(self, answer: Answer | None, guardrails: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns a response; of no answer, one that is in progress."""
        request = self.request
        reason = _INCOMPLETE.get(schemas.finish_reason(answer)) if answer is not None else None
        status = "incomplete" if reason else "completed"
        body: dict[str, Any] = {
            "id": self.response_id,
            "object": "response",
            "created_at": self._created,
            "status": status if answer is not None else "in_progress",
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": self.model,
            "output": self.output(answer) if answer is not None else [],
            "parallel_tool_calls": True,
            "previous_response_id": request.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": self.is_stored,
            "temperature": request.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": request.tool_choice or "auto",
            "tools": [_shown_tool(tool) for tool in request.tools or ()],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": _usage(answer) if answer is not None else None,
            "metadata": request.metadata or {},
        }
        if guardrails is not None:
            body["guardrails"] = dict(guardrails)
        return body

    def output(self, answer: Answer) -> list[dict[str, Any]]:
        """Returns the items of an answer: its message, and its tool calls."""
        calls = [self._call_item(call, k) for k, call in enumerate(answer.message.tool_calls)]
        if calls and not answer.text and not self._message_started:
            return calls
        is_whole = schemas.finish_reason(answer) not in _INCOMPLETE
        return [self._message_item(answer.text, "completed" if is_whole else "incomplete"), *calls]

    def _message_item(self, text: str | None, status: str) -> dict[str, Any]:
        content = [] if text is None else [_text_part(text)]
        return {
            "id": self._message_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _call_item(self, call: ToolCall, number: int) -> dict[str, Any]:
        return {
            "id": f"fc_{self._message_id[4:]}_{number}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id or f"call_{number}",
            "name": call.name,
            "arguments": call.arguments,
        }

    # -- events ----------------------------------------------------------------------------------

    def event(self, kind: str, **fields: Any) -> bytes:
        """Returns one server-sent event."""
        body = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + schemas.encode_json(body) + b"\n\n"

    def start(self) -> Iterator[bytes]:
        """Yields the events before any output."""
        body = self.body(None, None)
        yield self.event("response.created", response=body)
        yield self.event("response.in_progress", response=body)

    def start_message(self) -> Iterator[bytes]:
        """Yields the events before the first text."""
        self._message_started = True
        item = self._message_item(None, "in_progress")
        yield self.event("response.output_item.added", output_index=0, item=item)
        yield self._part_event("response.content_part.added", part=_text_part(""))

    def delta(self, text: str) -> bytes:
        """Returns the event of a piece of text."""
        return self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def end(self, answer: Answer, guardrails: Mapping[str, Any] | None) -> Iterator[bytes]:
        """Yields the events after the last text, the tool calls, and the whole response."""
        output = self.output(answer)
        if output and output[0]["type"] == "message":
            if not self._message_started:
                yield from self.start_message()
                if answer.text:
                    yield self.delta(answer.text)
            text = answer.text
            yield self._part_event("response.output_text.done", text=text, logprobs=[])
            yield self._part_event("response.content_part.done", part=_text_part(text))
            yield self.event("response.output_item.done", output_index=0, item=output[0])
        for index, item in enumerate(output):
            if item["type"] == "function_call":
                yield from self._call_events(item, index)
        body = self.body(answer, guardrails)
        yield self.event(f"response.{body['status']}", response=body)

    def error(self, message: str, kind: str) -> bytes:
        """Returns the event that ends a stream which broke off."""
        return self.event("error", code=kind, message=message, param=None)

    def _part_event(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        return self.event(kind, **place, **fields)

    def _call_events(self, call_item: dict[str, Any], index: int) -> Iterator[bytes]:
        started = {**call_item, "status": "in_progress", "arguments": ""}
        place = {"item_id": call_item["id"], "output_index": index}
        arguments = call_item["arguments"]
        yield self.event("response.output_item.added", output_index=index, item=started)
        yield self.event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self.event(
            "response.function_call_arguments.done",
            **place,
            name=call_item["name"],
            arguments=arguments,
        )
        yield self.event("response.output_item.done", output_index=index, item=call_item)


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _shown_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"strict": None, "description": None, "parameters": None, **tool}


def _usage(answer: Answer) -> dict[str, Any]:
    used = answer.usage
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
