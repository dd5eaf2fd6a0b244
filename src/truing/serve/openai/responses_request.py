"""POST /v1/responses: requests of OpenAI's Responses API, read as the chat requests they stand for.

What this server does not do is refused with 400 and the field in `param`; fields that change
nothing here (`include`, `truncation`, `user`, ...) are ignored. Earlier reasoning is not given to
the model: no rail reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.request_checks import check_name, refuse
from truing.serve.openai.schemas import (
    ChatRequest,
    FunctionSchema,
    GuardrailsRequest,
    ToolSchema,
)

Rows = list[dict[str, Any]]
_ITEM_TYPES = "message, function_call, function_call_output, reasoning"
_MESSAGE_PLACE = re.compile(r"^messages(?:\[(\d+)\])?")
_FUNCTION_PLACE = re.compile(r"^(tools\[\d+\])\.function")
_MAX_METADATA = 16  # pairs, as OpenAI has it
_METADATA_CHARACTERS = 512


class ResponsesRequest(Struct, kw_only=True):
    """The fields that have an effect, and those that are refused."""

    input: str | list[dict[str, Any]]
    model: str = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: dict[str, str] | None = None
    text: dict[str, Any] | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    guardrails: GuardrailsRequest | None = None


class ResponsesTurn(Struct):
    """A request as a chat request: `earlier` are the messages of the response before it."""

    chat: ChatRequest
    own: Rows
    item_of_row: list[int]
    earlier: Rows = []

    def place_of(self, place: str) -> str:
        """Returns the field of the request that a field of the chat request stands for."""
        match = _MESSAGE_PLACE.match(place)
        if match is None:
            return _FUNCTION_PLACE.sub(r"\1", place)
        if match[1] is None:
            return f"input{place[match.end() :]}"
        row = int(match[1]) - (len(self.chat.messages) - len(self.item_of_row))
        if row < 0:
            return "previous_response_id"
        item = self.item_of_row[row]
        return f"input[{item}]{place[match.end() :]}" if item >= 0 else "instructions"


def read_turn(request: ResponsesRequest, earlier: Rows, limits: ServerLimits) -> ResponsesTurn:
    """Returns the chat request of a request. Raises RequestRefused (400)."""
    _refuse_unsupported(request, limits)
    _take_context(request)
    own, item_of_row = _read_input(request.input, limits)
    rows = [*earlier, *own]
    if request.instructions:
        # Those of the response before are not carried over.
        rows.insert(0, {"role": "system", "content": request.instructions})
    chat = ChatRequest(
        rows,
        model=request.model,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        tools=_read_tools(request),
        stream=request.stream,
        guardrails=request.guardrails,
    )
    return ResponsesTurn(chat, own, item_of_row, earlier)


def _refuse_unsupported(request: ResponsesRequest, limits: ServerLimits) -> None:
    if request.background:
        raise refuse("background", "this server answers while the client waits")
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise refuse(name, "this server keeps none")
    form = (request.text or {}).get("format")
    if form is not None and (not isinstance(form, Mapping) or form.get("type") != "text"):
        raise refuse("text.format", 'only {"type": "text"} is supported')
    if request.tool_choice not in (None, "auto", "none"):
        raise refuse("tool_choice", "only auto and none are supported")
    metadata = request.metadata or {}
    if len(metadata) > _MAX_METADATA or any(
        max(len(name), len(value)) > _METADATA_CHARACTERS for name, value in metadata.items()
    ):
        raise refuse("metadata", f"at most {_MAX_METADATA} pairs of {_METADATA_CHARACTERS} each")
    if len(request.instructions or "") > limits.message_characters:
        raise refuse("instructions", f"longer than {limits.message_characters} characters")
    check_name("previous_response_id", request.previous_response_id or "", limits)


def _read_tools(request: ResponsesRequest) -> list[ToolSchema] | None:
    if request.tool_choice == "none":
        return None
    return [_read_tool(row, f"tools[{index}]") for index, row in enumerate(request.tools or ())]


def _read_tool(row: Mapping[str, Any], place: str) -> ToolSchema:
    if row.get("type") != "function":
        raise refuse(f"{place}.type", "functions are the only kind of tool")
    name, about, parameters = row.get("name"), row.get("description"), row.get("parameters")
    if not isinstance(name, str) or not name:
        raise refuse(f"{place}.name", "expected the name of the function")
    if about is not None and not isinstance(about, str):
        raise refuse(f"{place}.description", "expected text")
    if parameters is not None and not isinstance(parameters, dict):
        raise refuse(f"{place}.parameters", "expected a JSON Schema")
    return ToolSchema("function", FunctionSchema(name, about or "", parameters or {}))


# -- input items ---------------------------------------------------------------------------------


def _read_input(input_items: str | Sequence[Any], limits: ServerLimits) -> tuple[Rows, list[int]]:
    """Returns the messages of the items, and for each the number of its item."""
    if isinstance(input_items, str):
        return [{"role": "user", "content": input_items}], [0]
    if len(input_items) > limits.messages:
        raise refuse("input", f"more than {limits.messages} items")
    if not input_items:
        raise refuse("input", "at least one item is needed")
    rows: Rows = []
    numbers: list[int] = []
    for number, item in enumerate(input_items):
        row = _read_item(item, f"input[{number}]")
        if row is None:
            continue
        if _joins_calls(rows, row):
            rows[-1].setdefault("tool_calls", []).extend(row["tool_calls"])
            continue
        rows.append(row)
        numbers.append(number)
    if not rows:
        raise refuse("input", "at least one message is needed")
    return rows, numbers


def _take_context(request: ResponsesRequest) -> None:
    """Puts the variables of messages of the role `context` into `guardrails.context`."""
    if isinstance(request.input, str):
        return
    for number, item in enumerate(request.input):
        if item.get("role") != "context":
            continue
        if not isinstance(item.get("content"), dict):
            raise refuse(f"input[{number}].content", 'expected an object: {"name": "value"}')
        request.guardrails = request.guardrails or GuardrailsRequest()
        request.guardrails.context = {**(request.guardrails.context or {}), **item["content"]}


def _joins_calls(rows: Rows, row: Mapping[str, Any]) -> bool:
    """Returns whether a call belongs to the message before it: one turn of the model."""
    return bool(rows) and "tool_calls" in row and rows[-1]["role"] == "assistant"


def _read_item(input_item: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    """Returns the message of an item; None for one that a model here does not get."""
    kind = input_item.get("type") or "message"
    if kind == "message" and input_item.get("role") == "context":
        return None  # its variables are taken already
    if kind == "message":
        return {"role": input_item.get("role"), "content": input_item.get("content")}
    if kind == "function_call":
        name, arguments = input_item.get("name"), input_item.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise refuse(place, "a function_call needs name and arguments, both text")
        call = {
            "id": _read_call_id(input_item, place),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        call_id = _read_call_id(input_item, place)
        if not isinstance(input_item.get("output"), str | list):
            raise refuse(f"{place}.output", "expected text or a list of parts")
        return {"role": "tool", "content": input_item["output"], "tool_call_id": call_id}
    if kind == "reasoning":
        return None
    raise refuse(f"{place}.type", f"{str(kind)[:40]!r} is none of {_ITEM_TYPES}")


def _read_call_id(item: Mapping[str, Any], place: str) -> str:
    call_id = item.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        raise refuse(f"{place}.call_id", "expected the id of the call")
    return call_id


def name_own_field(error: RequestRefused, turn: ResponsesTurn) -> RequestRefused:
    """Returns a refusal of the chat request with the field of the request that is at fault."""
    if error.param is None:
        return error
    param = turn.place_of(error.param)
    message = error.message
    if message.startswith(error.param):
        message = f"{param}{message[len(error.param) :]}"
    return RequestRefused(error.status, message, error.kind, error.retry_after, param)
