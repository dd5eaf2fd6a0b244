"""`RailsModel`: a model of the Agents SDK behind rails.

Its input is read before the model gets it; its output, text and calls, before the run or a reader
of the stream does. A refused turn is answered with what the rail says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from truing.core.types import Conversation, Message, Tool
from truing.integrations.hook_rails import HookCheck, HookRails, UncheckedContent
from truing.integrations.openai_agents.items import read_input, read_output, read_tools
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.openai_agents", "openai-agents"):
    from agents.items import ModelResponse
    from agents.models.interface import Model
    from agents.models.multi_provider import MultiProvider
    from agents.usage import Usage
    from openai.types.responses import (
        Response,
        ResponseCompletedEvent,
        ResponseOutputMessage,
        ResponseOutputText,
        ResponseTextDeltaEvent,
    )


# The positional arguments of a call of a model; the SDK names them.
_CALL_ARGUMENTS = (
    *("system_instructions", "input", "model_settings", "tools"),
    *("output_schema", "handoffs", "tracing"),
)


class RailsModel(Model):
    """`model` (or the name of one, for `provider`) behind rails.

    `remember` is called with each message that has passed.
    """

    def __init__(
        self,
        model: Any,
        rails: HookRails,
        provider: Any = None,
        remember: Callable[[Message], None] = lambda message: None,
    ) -> None:
        if not isinstance(model, Model):
            model = (provider or MultiProvider()).get_model(model)
        self.model, self.rails, self.remember = model, rails, remember

    async def close(self) -> None:
        """Closes the model."""
        await self.model.close()

    def get_retry_advice(self, request: Any) -> Any:
        """Returns the model's advice."""
        return self.model.get_retry_advice(request)

    async def get_response(self, *positional: Any, **named: Any) -> Any:
        """Returns the response as the rails leave it."""
        call = {**dict(zip(_CALL_ARGUMENTS, positional, strict=False)), **named}
        check = await self._check_input(call)
        if not check.allowed:
            refusal = refusal_item(check.reply)
            return ModelResponse(output=[refusal], usage=Usage(), response_id=None)
        response = await self.model.get_response(**_with_texts(call, check.messages))
        tools = read_tools(call["tools"], call["handoffs"])
        response.output = await self._check_output(check.messages, response.output, tools)
        return response

    async def stream_response(self, *positional: Any, **named: Any) -> AsyncIterator[Any]:
        """Yields the events of the model once the rails have passed the whole response."""
        call = {**dict(zip(_CALL_ARGUMENTS, positional, strict=False)), **named}
        check = await self._check_input(call)
        if not check.allowed:
            for event in refusal_events(check.reply):
                yield event
            return
        events = self.model.stream_response(**_with_texts(call, check.messages))
        held = [event async for event in events]
        tools = read_tools(call["tools"], call["handoffs"])
        for event in await self._release(check.messages, held, tools):
            yield event

    async def _check_input(self, call: dict[str, Any]) -> HookCheck:
        try:
            conversation = read_input(call["system_instructions"], call["input"])
        except UncheckedContent as error:
            return self._refuse("input", str(error))
        tools = read_tools(call["tools"], call["handoffs"])
        check = await self.rails.check(conversation, tools=tools)
        if not check.allowed:
            self.remember(Message("assistant", check.reply))
        return check

    def _refuse(self, stage: str, reason: str) -> HookCheck:
        check = self.rails.block(stage, reason)
        self.remember(Message("assistant", check.reply))
        return check

    async def _check_output(
        self, before: tuple[Message, ...], output: Sequence[Any], tools: tuple[Tool, ...]
    ) -> list[Any]:
        """Returns the items of an output as the rails leave them; one refusal if they object."""
        items = list(output)
        try:
            readable = list(read_output(items))
        except UncheckedContent as error:
            return [refusal_item(self._refuse("output", str(error)).reply)]
        for index, message in readable:
            check = await self.rails.check(Conversation((*before, message)), tools=tools)
            if not check.allowed:
                self.remember(Message("assistant", check.reply))
                return [refusal_item(check.reply)]
            checked = check.messages[-1]
            if checked != message:
                items[index] = _rewrite(items[index], checked)
                if items[index] is None:
                    reason = "a rail rewrites what cannot be rewritten"
                    return [refusal_item(self._refuse("output", reason).reply)]
            self.remember(checked)
        return items

    async def _release(
        self, before: tuple[Message, ...], held: Sequence[Any], tools: tuple[Tool, ...]
    ) -> list[Any]:
        """Returns the held events, or others in their place where the rails changed something."""
        last = held[-1] if held else None
        response = getattr(last, "response", None)
        if response is None:
            reason = "the stream of the model did not end with a response"
            return refusal_events(self._refuse("output", reason).reply)
        output = await self._check_output(before, response.output, tools)
        if len(output) == len(response.output) and all(
            checked is item for checked, item in zip(output, response.output, strict=True)
        ):
            return list(held)
        return _events_of(response.model_copy(update={"output": output}))


def _with_texts(call: dict[str, Any], messages: Sequence[Message]) -> dict[str, Any]:
    """Returns the arguments of a call with the texts as the rails leave them."""
    rest = list(messages)
    instructions = call["system_instructions"]
    if instructions:
        instructions = rest.pop(0).content
    items = call["input"]
    checked = rest[0].content if isinstance(items, str) else _with_item_texts(items, rest)
    return {**call, "system_instructions": instructions, "input": checked}


def _with_item_texts(items: Sequence[Any], rest: list[Message]) -> list[Any]:
    checked: list[Any] = []
    for item in items:
        row = item if isinstance(item, dict) else item.model_dump(exclude_unset=True)
        kind = row.get("type") or "message"
        if kind == "reasoning":
            checked.append(item)
            continue
        message = rest.pop(0)
        if read_input(None, [item]).messages[0] == message:
            checked.append(item)
        elif kind == "message":
            checked.append({**row, "content": message.content})
        elif kind == "function_call":
            checked.append({**row, "arguments": message.tool_calls[0].arguments})
        elif kind == "function_call_output":
            checked.append({**row, "output": message.content})
        # What a rail rewrote of a provider's own item is left out: its form is not known.
    return checked


def _rewrite(item: Any, message: Message) -> Any:
    """Returns an item with what a rail made of it; None if that is not possible."""
    if item.type == "message":
        return item.model_copy(update={"content": [_text(message.content)]})
    if item.type == "function_call" and message.tool_calls:
        return item.model_copy(update={"arguments": message.tool_calls[0].arguments})
    return None


def _text(text: str) -> Any:
    return ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])


def refusal_item(reply: str) -> Any:
    """Returns the item of an answer that a rail gives."""
    return ResponseOutputMessage(
        id="msg_truing_rails",
        type="message",
        role="assistant",
        status="completed",
        content=[_text(reply)],
    )


def refusal_events(reply: str) -> list[Any]:
    """Returns the events of an answer that a rail gives."""
    return _events_of(
        Response(
            id="resp_truing_rails",
            created_at=0,
            model="truing-rails",
            object="response",
            output=[refusal_item(reply)],
            parallel_tool_calls=False,
            tool_choice="none",
            tools=[],
        )
    )


def _events_of(response: Any) -> list[Any]:
    """Returns a response as events: its texts, and the end."""
    events: list[Any] = []
    for index, item in enumerate(response.output):
        if item.type == "message":
            for part, content in enumerate(item.content):
                events.append(
                    ResponseTextDeltaEvent(
                        type="response.output_text.delta",
                        delta=getattr(content, "text", ""),
                        content_index=part,
                        item_id=item.id,
                        output_index=index,
                        logprobs=[],
                        sequence_number=len(events),
                    )
                )
    end = ResponseCompletedEvent(
        type="response.completed", response=response, sequence_number=len(events)
    )
    return [*events, end]
