"""Checks decoded requests against the server's bounds; a route gets only what is within them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.protocols import Model
from truing.core.types import Conversation, ImageMessage, MessageFormatError, Sampling
from truing.rails.config.client_settings import PRIVATE_LOGS, ClientSettings
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.generation_log import (
    TurnRecord,
    build_generation_log,
    select_output_data,
)
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.schemas import ChatRequest, GuardrailsRequest, ModerationRequest


def refuse(param: str, reason: str) -> RequestRefused:
    """Returns the refusal (400) of a request for one of its fields."""
    return RequestRefused(400, f"{param}: {reason}", param=param)


def read_chat_request(
    request: ChatRequest, limits: ServerLimits, *, with_images: bool = False
) -> tuple[Conversation, Sampling]:
    """Returns the conversation and the sampling options. Raises RequestRefused (400)."""
    check_name("model", request.model, limits)
    if request.guardrails is not None:
        check_name("guardrails.config_id", request.guardrails.config_id or "", limits)
        for config_id in request.guardrails.config_ids or ():
            check_name("guardrails.config_ids", config_id, limits)
    if (request.n or 1) > limits.choices:
        raise refuse("n", f"more than {limits.choices} answers")
    _check_stop(request, limits)
    _check_tools(request, limits)
    conversation = read_conversation(request, limits, with_images=with_images)
    return conversation, request.sampling(limits.max_tokens)


def take_context(request: ChatRequest) -> None:
    """Moves the variables in messages of the role `context` into `guardrails.context`, where a
    later value replaces an earlier one. Raises RequestRefused (400) for one that is no object.
    """
    rows = [row for row in request.messages if row.get("role") == "context"]
    if not rows:
        return
    variables: dict[str, Any] = {}
    for index, row in enumerate(request.messages):
        if row.get("role") != "context":
            continue
        if not isinstance(row.get("content"), dict):
            raise refuse(f"messages[{index}].content", 'expected an object: {"name": "value"}')
        variables |= row["content"]
    request.messages = [row for row in request.messages if row.get("role") != "context"]
    request.guardrails = request.guardrails or GuardrailsRequest()
    request.guardrails.context = {**(request.guardrails.context or {}), **variables}


def refuse_continuation(guardrails: GuardrailsRequest | None) -> None:
    """Raises RequestRefused (400) for a check that names an earlier conversation."""
    for name in ("thread_id", "state"):
        if guardrails is not None and getattr(guardrails, name) is not None:
            raise refuse(f"guardrails.{name}", "a check reads the messages of the request alone")


def read_conversation(
    request: ChatRequest, limits: ServerLimits, *, with_images: bool = False
) -> Conversation:
    """Returns the messages of a request. Raises RequestRefused (400)."""
    if len(request.messages) > limits.messages:
        raise refuse("messages", f"more than {limits.messages} messages")
    try:
        conversation = request.conversation(with_images=with_images)
    except MessageFormatError as error:
        raise RequestRefused(400, str(error), param=error.field) from error
    except ValueError as error:
        raise RequestRefused(400, str(error), param="messages") from error
    for index, message in enumerate(conversation.messages):
        place = f"messages[{index}]"
        characters = len(message.content) + sum(len(c.arguments) for c in message.tool_calls)
        if characters > limits.message_characters:
            raise refuse(f"{place}.content", f"longer than {limits.message_characters} characters")
        check_name(f"{place}.tool_call_id", message.tool_call_id or "", limits)
        if len(message.tool_calls) > limits.tools:
            raise refuse(f"{place}.tool_calls", f"more than {limits.tools} calls")
        for call_index, call in enumerate(message.tool_calls):
            check_name(f"{place}.tool_calls[{call_index}].id", call.id, limits)
            check_name(f"{place}.tool_calls[{call_index}].function.name", call.name, limits)
    _check_images(conversation, limits)
    return conversation


def _check_images(conversation: Conversation, limits: ServerLimits) -> None:
    images = 0
    for index, message in enumerate(conversation.messages):
        if not isinstance(message, ImageMessage):
            continue
        images += len(message.images)
        if images > limits.images:
            raise refuse(f"messages[{index}].content", f"more than {limits.images} images")
        if any(len(image) > limits.image_bytes for image in message.images):
            reason = f"an image of more than {limits.image_bytes} bytes, as its address has them"
            raise refuse(f"messages[{index}].content", reason)


def require_image_reader(conversation: Conversation, model: Model) -> None:
    """Raises RequestRefused (400) for images that no rail reads, or that the model does not."""
    for index, message in enumerate(conversation.messages):
        if not isinstance(message, ImageMessage):
            continue
        param = f"messages[{index}].content"
        if not isinstance(model, GuardedModel):
            raise refuse(param, "images are read by rails only: content safety check input")
        if not getattr(model.model, "reads_images", False):
            raise refuse(param, "the model of this configuration reads no images")


class ClientTurn(Struct, frozen=True):
    """What a request may set of a turn behind rails: options that have an effect, and variables."""

    options: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    record: TurnRecord = field(default_factory=TurnRecord)

    def extra_fields(self) -> dict[str, Any]:
        """Returns the variables and the log that the options ask for, once the turn is over."""
        options = self.options or {}
        result = self.record.result
        extra: dict[str, Any] = {}
        output_data = select_output_data(result, options.get("output_vars"))
        if output_data is not None:
            extra["output_data"] = output_data
        log = {name: on for name, on in (options.get("log") or {}).items() if name in PRIVATE_LOGS}
        generation_log = build_generation_log(result, log)
        if generation_log is not None:
            extra["log"] = generation_log
        return extra


def read_guardrails(
    guardrails: GuardrailsRequest | None, model: Model, limits: ServerLimits
) -> ClientTurn:
    """Returns the options and variables that the model's configuration lets a client set.

    Raises RequestRefused (400), with the reason, for any other, and for more tokens than the
    server allows: nothing is left out silently.
    """
    if guardrails is None:
        return ClientTurn()
    try:
        if isinstance(model, GuardedModel):
            options = model.accept_client_options(guardrails.options)
            context = model.client_settings.accept_context(guardrails.context)
        else:
            options = ClientSettings().accept_options(guardrails.options)
            context = ClientSettings().accept_context(guardrails.context)
    except ValueError as error:
        raise RequestRefused(400, str(error), param=str(error).partition(":")[0]) from error
    asked_tokens = ((options or {}).get("llm_params") or {}).get("max_tokens", 0)
    if asked_tokens > limits.max_tokens:
        # The configuration's bound may be higher than the server's, which holds for all of them.
        param = "guardrails.options.llm_params.max_tokens"
        raise refuse(param, f"this server gives at most {limits.max_tokens} tokens")
    return ClientTurn(options, context)


def check_moderation_request(request: ModerationRequest, limits: ServerLimits) -> list[str]:
    """Returns the texts to judge. Raises RequestRefused (400)."""
    check_name("model", request.model, limits)
    texts = [request.input] if isinstance(request.input, str) else request.input
    if not 1 <= len(texts) <= limits.moderation_texts:
        raise refuse("input", f"from 1 to {limits.moderation_texts} texts")
    for index, text in enumerate(texts):
        if len(text) > limits.message_characters:
            raise refuse(f"input[{index}]", f"longer than {limits.message_characters} characters")
    return texts


def check_name(param: str, name: str, limits: ServerLimits) -> None:
    """Raises RequestRefused (400) for a name or id that is too long: names are repeated in each
    event of a stream.
    """
    if len(name) > limits.name_characters:
        raise refuse(param, f"longer than {limits.name_characters} characters")


def _check_stop(request: ChatRequest, limits: ServerLimits) -> None:
    stop: Iterable[str] = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    for index, text in enumerate(stop):
        if index >= limits.stop_strings:
            raise refuse("stop", f"more than {limits.stop_strings} strings")
        if not text or len(text) > limits.stop_characters:
            raise refuse("stop", f"each has from 1 to {limits.stop_characters} characters")


def _check_tools(request: ChatRequest, limits: ServerLimits) -> None:
    tools = request.tools or []
    if len(tools) > limits.tools:
        raise refuse("tools", f"more than {limits.tools} tools")
    for index, tool in enumerate(tools):
        if tool.type != "function":
            raise refuse(f"tools[{index}].type", "functions are the only kind of tool")
        check_name(f"tools[{index}].function.name", tool.function.name, limits)
    if tools and len(msgspec.json.encode(tools)) > limits.tool_bytes:
        raise refuse("tools", f"more than {limits.tool_bytes} bytes")
