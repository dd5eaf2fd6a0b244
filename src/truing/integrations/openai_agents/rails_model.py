"""`RailsModel`: a model of the Agents SDK behind rails.

Its input is read before the model gets it; its output, text and calls, before the run or a reader
of the stream does. A refused turn is answered with what the rail says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from truing.core.types import Conversation, Message, Tool
from truing.integrations.hook_rails import HookCheck, HookRails, UncheckedContent
from truing.integrations.openai_agents.items import (
    as_mapping,
    read_input,
    read_item,
    read_output,
    read_tools,
)
from truing.integrations.openai_agents.passed_items import PassedItems, current_session
from truing.integrations.readable_content import is_plain
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


_WHOLE_ENDS = ("response.completed", "response.incomplete")
# The positional arguments of a call of a model; the SDK names them.
_CALL_ARGUMENTS = (
    *("system_instructions", "input", "model_settings", "tools"),
    *("output_schema", "handoffs", "tracing"),
)


class RailsModel(Model):
    """`model` (or the name of one, for `provider`) behind rails.

    What has passed is remembered in `rails.passed` where these are `AgentRails`. What a server of
    the provider remembers (`previous_response_id`, a conversation) is not read again.
    """

    def __init__(self, model: Any, rails: HookRails, provider: Any = None) -> None:
        if not isinstance(model, Model):
            model = (provider or MultiProvider()).get_model(model)
        self.model, self.rails = model, rails
        self.passed: PassedItems = getattr(rails, "passed", None) or PassedItems()

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
        response = await self.model.get_response(**self._with_texts(call, check.messages))
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
        events = self.model.stream_response(**self._with_texts(call, check.messages))
        last = None
        async for event in events:
            last = event
        tools = read_tools(call["tools"], call["handoffs"])
        for event in await self._release(check.messages, last, tools):
            yield event

    async def _check_input(self, call: dict[str, Any]) -> HookCheck:
        try:
            if dict(call.get("prompt") or {}).get("variables"):
                raise UncheckedContent("the variables of a stored prompt are read by no rail")
            conversation = read_input(call["system_instructions"], call["input"])
        except UncheckedContent as error:
            return self._refuse("input", str(error))
        tools = read_tools(call["tools"], call["handoffs"])
        check = await self.rails.check(conversation, tools=tools, session=current_session())
        if not check.allowed:
            self.passed.remember_message(Message("assistant", check.reply))
        return check

    def _refuse(self, stage: str, reason: str) -> HookCheck:
        check = self.rails.block(stage, reason)
        self.passed.remember_message(Message("assistant", check.reply))
        return check

    async def _check_output(
        self, before: tuple[Message, ...], output: Sequence[Any], tools: tuple[Tool, ...]
    ) -> list[Any]:
        """Returns the items of an output as the rails leave them; one refusal if they object."""
        try:
            reading = read_output(output)
        except UncheckedContent as error:
            return [refusal_item(self._refuse("output", str(error)).reply)]
        checked_items = list(output)
        for message in (*reading.others, reading.answer):
            if message is None:
                continue
            check = await self.rails.check(
                Conversation((*before, message)),
                tools=tools,
                session=current_session(),
                ends_in_answer=True,
            )
            if not check.allowed:
                self.passed.remember_message(Message("assistant", check.reply))
                return [refusal_item(check.reply)]
            if message is reading.answer:
                checked_items = _with_answer(checked_items, message, check.messages[-1])
            elif check.messages[-1] != message:
                reason = "a rail rewrites what cannot be rewritten"
                return [refusal_item(self._refuse("output", reason).reply)]
        self.passed.remember_items(checked_items)
        return checked_items

    async def _release(
        self, before: tuple[Message, ...], last: Any, tools: tuple[Tool, ...]
    ) -> list[Any]:
        """Returns the events of the response that ends a stream, as the rails leave it.

        Events before the last may hold what the response does not repeat: none of them is released.
        """
        response = getattr(last, "response", None)
        if response is None or getattr(last, "type", "") not in _WHOLE_ENDS:
            reason = "the stream of the model did not end with a whole response"
            return refusal_events(self._refuse("output", reason).reply)
        output = await self._check_output(before, response.output, tools)
        checked = response.model_copy(update={"output": output})
        return [*_text_events(checked), last.model_copy(update={"response": checked})]

    def _with_texts(self, call: dict[str, Any], messages: Sequence[Message]) -> dict[str, Any]:
        """Returns the arguments of a call with the texts as the rails leave them."""
        checked = list(messages)
        instructions = call["system_instructions"]
        if instructions:
            instructions = checked.pop(0).content
        items = call["input"]
        if isinstance(items, str):
            return {**call, "system_instructions": instructions, "input": checked[0].content}
        rebuilt: list[Any] = []
        for item in items:
            row = as_mapping(item)
            before = read_item(row)
            after = checked.pop(0) if before is not None else None
            if before == after and self.passed.holds_item(row):
                rebuilt.append(item)
            elif after is not None:
                rebuilt.append(_build_item(row, after))
        return {**call, "system_instructions": instructions, "input": rebuilt}


def _build_item(row: Any, message: Message) -> Any:
    """Returns an item of a client that holds what the rails have read, and nothing else."""
    kind = row.get("type") or "message"
    if kind == "message":
        return {"role": row["role"], "content": message.content}
    if kind == "function_call":
        call = message.tool_calls[0]
        return {
            "type": kind,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
    if kind == "function_call_output":
        return {"type": kind, "call_id": message.tool_call_id, "output": message.content}
    # A call of a provider's own tool: its form is not known, so its text goes on as a text.
    return {"role": "user", "content": message.content}


def _with_answer(items: Sequence[Any], before: Message, after: Message) -> list[Any]:
    """Returns the items of an output with the texts and calls as the rails leave them."""
    calls = iter(after.tool_calls)
    texts = iter([after.content])
    checked: list[Any] = []
    for output_item in items:
        if output_item.type == "function_call":
            call = next(calls)
            is_same = (call.name, call.arguments) == (
                output_item.name,
                output_item.arguments or "{}",
            )
            update = {"name": call.name, "arguments": call.arguments}
            checked.append(output_item if is_same else output_item.model_copy(update=update))
        elif output_item.type != "message":
            checked.append(output_item)
        elif after.content == before.content:
            checked.append(_with_plain_texts(output_item))
        else:
            # A rail has rewritten the texts of all messages as one.
            text = next(texts, None)
            if text is not None:
                checked.append(output_item.model_copy(update={"content": [_text(text)]}))
    return checked


def _with_plain_texts(item: Any) -> Any:
    """Returns a message without what a provider adds to its texts, such as citations."""
    rows = [part.model_dump(exclude_unset=True) for part in item.content]
    if is_plain(rows):
        return item
    content = [_text(part.text) if part.type == "output_text" else part for part in item.content]
    return item.model_copy(update={"content": content})


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
    response = Response(
        id="resp_truing_rails",
        created_at=0,
        model="truing-rails",
        object="response",
        output=[refusal_item(reply)],
        parallel_tool_calls=False,
        tool_choice="none",
        tools=[],
    )
    end = ResponseCompletedEvent(type="response.completed", response=response, sequence_number=1)
    return [*_text_events(response), end]


def _text_events(response: Any) -> list[Any]:
    """Returns the texts of a response as the events of a stream."""
    events: list[Any] = []
    for index, output_item in enumerate(response.output):
        if output_item.type == "message":
            for part, content in enumerate(output_item.content):
                events.append(
                    ResponseTextDeltaEvent(
                        type="response.output_text.delta",
                        delta=str(getattr(content, "text", "") or getattr(content, "refusal", "")),
                        content_index=part,
                        item_id=output_item.id,
                        output_index=index,
                        logprobs=[],
                        sequence_number=len(events),
                    )
                )
    return events
