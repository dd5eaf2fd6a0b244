"""What LiteLLM gives to a guardrail, checked by rails: the texts of a request or of a response.

LiteLLM takes texts out of any of its end points and gives them in their order (`texts`), with the
messages where the end point has some (`structured_messages`), images, tools and tool calls. It
takes back as many texts. The form is that of LiteLLM's Generic Guardrail API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from truing.core.messages import decode_tool_calls
from truing.core.types import Conversation, Message, MessageFormatError, Role, Ruling, Tool
from truing.integrations.hook_rails import (
    HookCheck,
    UncheckedContent,
    block_step,
    check_step,
)
from truing.integrations.readable_content import read_parts
from truing.rails.guarded import GuardedModel

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_MODEL_PARTS = frozenset({"tool_use"})  # of a model's own message: its calls are read as calls

_ROW_FIELDS = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "id", "type", "status"}
    | {"cache_control"}
)

Rows = Sequence[Mapping[str, Any]]


class GuardrailInputs(Struct, kw_only=True):
    """The texts of a request to a model, or of its response."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    images: list[Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    structured_messages: list[dict[str, Any]] | None = None


class GuardrailDecision(Struct, frozen=True, kw_only=True):
    """What the rails decided.

    `texts` and `tool_calls` are those of the inputs as the rails leave them, the calls of messages
    among them; `reply` is what the user is told where they object.
    """

    allowed: bool
    reply: str = ""
    texts: list[str] = []
    tool_calls: list[dict[str, Any]] = []
    calls_changed: bool = False
    rulings: tuple[Ruling, ...] = ()


async def check_inputs(
    guarded: GuardedModel, inputs: GuardrailInputs, session: str = ""
) -> GuardrailDecision:
    """Returns the decision of the rails; what they cannot read (images, files) is refused."""
    stage = "input" if inputs.input_type == "request" else "output"
    try:
        if inputs.images:
            raise UncheckedContent("an image is read by no rail")
        if inputs.input_type == "request":
            return await _check_request(guarded, inputs, session)
        return await _check_response(guarded, inputs, session)
    except (UncheckedContent, MessageFormatError) as error:
        return _refusal(block_step(stage, str(error)))


async def _check_request(
    guarded: GuardedModel, inputs: GuardrailInputs, session: str
) -> GuardrailDecision:
    messages = list(_request_messages(inputs))
    conversation = Conversation(tuple(message for message, _ in messages))
    check = await check_step(
        guarded, conversation, tools=read_tools(inputs.tools or ()), session=session
    )
    if not check.allowed:
        return _refusal(check)
    pairs = list(zip(check.messages, messages, strict=True))
    if any(c.content != before.content for c, (before, is_text) in pairs if not is_text):
        reason = "a rail rewrites a text that LiteLLM does not take back"
        return _refusal(block_step("input", reason), check.rulings)
    return GuardrailDecision(
        allowed=True,
        texts=[checked.content for checked, (_, is_text) in pairs if is_text],
        tool_calls=[call.to_openai() for checked, _ in pairs for call in checked.tool_calls],
        calls_changed=any(c.tool_calls != before.tool_calls for c, (before, _) in pairs),
        rulings=check.rulings,
    )


async def _check_response(
    guarded: GuardedModel, inputs: GuardrailInputs, session: str
) -> GuardrailDecision:
    """Checks each text as an answer of its own: a response may hold several choices."""
    earlier = _read_rows(inputs.structured_messages or ())
    calls = decode_tool_calls(inputs.tool_calls, "tool_calls")
    answers = [Message("assistant", text) for text in inputs.texts or ()]
    if calls:
        answers.append(Message("assistant", "", calls))
    rulings: list[Ruling] = []
    checked: list[Message] = []
    for answer in answers:
        conversation = Conversation((*(message for message, _ in earlier), answer))
        check = await check_step(guarded, conversation, session=session, ends_in_answer=True)
        if not check.allowed:
            return _refusal(check, rulings)
        rulings += check.rulings
        checked.append(check.messages[-1])
    return GuardrailDecision(
        allowed=True,
        texts=[message.content for message in checked[: len(inputs.texts or ())]],
        tool_calls=[call.to_openai() for message in checked for call in message.tool_calls],
        calls_changed=any(
            after.tool_calls != before.tool_calls
            for after, before in zip(checked, answers, strict=True)
        ),
        rulings=tuple(rulings),
    )


def _refusal(check: HookCheck, rulings: Sequence[Ruling] | None = None) -> GuardrailDecision:
    decided = check.rulings if rulings is None else (*rulings, *check.rulings)
    return GuardrailDecision(allowed=False, reply=check.reply, rulings=decided)


def _request_messages(inputs: GuardrailInputs) -> Iterator[tuple[Message, bool]]:
    """Yields messages, and whether each stands for the next of the texts.

    The roles are those of the structured messages where these hold the texts in their order. Texts
    of messages that LiteLLM has left out are read too; what no message holds counts as the user's.
    """
    texts = inputs.texts or []
    rows = _mark_texts(_read_rows(inputs.structured_messages or ()), texts)
    yield from rows
    placed = [call for message, _ in rows for call in message.tool_calls]
    calls = decode_tool_calls(inputs.tool_calls, "tool_calls")
    unplaced = tuple(call for call in calls if call not in placed)
    if unplaced:
        yield Message("assistant", "", unplaced), False


def _mark_texts(rows: list[tuple[Message, bool]], texts: list[str]) -> list[tuple[Message, bool]]:
    """Returns the messages of the rows with a mark on those that stand for the texts, in order."""
    marked: list[tuple[Message, bool]] = []
    number = 0
    for message, is_text in rows:
        is_next = is_text and number < len(texts) and message.content == texts[number]
        marked.append((message, is_next))
        number += is_next
    if number == len(texts):
        return marked
    known = set(texts)
    unread = [
        (message, False)
        for message, is_text in rows
        if not is_text or message.role == "tool" or message.content not in known
    ]
    return [*unread, *((Message("user", text), True) for text in texts)]


def _read_rows(rows: Rows) -> list[tuple[Message, bool]]:
    """Returns messages in LiteLLM's order of texts, one for each text of each row."""
    messages: list[tuple[Message, bool]] = []
    for index, row in enumerate(rows):
        role = _ROLES.get(str(row.get("role")), "user")
        call_id = row.get("tool_call_id") if role == "tool" else None
        calls = decode_tool_calls(row.get("tool_calls"), f"structured_messages[{index}].tool_calls")
        call_id = call_id if isinstance(call_id, str) else None
        ignored = _MODEL_PARTS if role == "assistant" else ()
        texts = read_parts(row.get("content"), ignored=ignored)
        messages += [(Message(role, text, (), call_id), True) for text in texts]
        if role != "tool" and isinstance(row.get("name"), str):
            messages.append((Message(role, str(row["name"])), False))
        if calls:
            messages.append((Message("assistant", "", calls), False))
        _refuse_unread(row)
    return messages


def _refuse_unread(row: Mapping[str, Any]) -> None:
    """Raises UncheckedContent for a field of a message that a model gets and no rail reads."""
    unread = sorted(str(key) for key, value in row.items() if value and key not in _ROW_FIELDS)
    if unread:
        raise UncheckedContent(f"{unread[0][:40]!r} of a message is read by no rail")


def read_tools(rows: Rows) -> tuple[Tool, ...]:
    """Returns offered tools; of one that is no function, its whole definition."""
    tools = []
    for row in rows:
        function = row.get("function")
        if isinstance(function, Mapping):
            parameters = json.dumps(function.get("parameters") or {}, ensure_ascii=False)
            name, about = str(function.get("name", "")), str(function.get("description") or "")
            tools.append(Tool(name, about, parameters))
        else:
            text = json.dumps(row, ensure_ascii=False, default=str)
            tools.append(Tool(str(row.get("type", "tool")), text))
    return tuple(tools)
