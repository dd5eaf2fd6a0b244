"""The traces of other tools' agents as episodes: each call with its result, turn by turn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from truing.core.episodes import AgentTurn, CallRecord, CallStatus, Episode
from truing.core.types import Message, ToolCall

MAX_RESULT_CHARACTERS = 20_000
"""What is kept of a result; `CallRecord.cut` has the length of a longer one."""


def read_episode(messages: Sequence[Message], failed: Collection[str] = ()) -> Episode | None:
    """Returns the episode in the messages from the first assistant's on; None without a tool call.

    `failed` are the ids of calls whose tool reported an error. A call without a result in the trace
    has the status ``missing``: whether it was executed is not known. Results without a call are
    left out: `find_missing_turns` tells of them.
    """
    results = {m.tool_call_id: m.content for m in messages if m.role == "tool" and m.tool_call_id}
    turns = [
        AgentTurn(
            text=message.content,
            calls=tuple(_record(call, results, failed) for call in message.tool_calls),
        )
        for message in messages
        if message.role == "assistant"
    ]
    if not any(turn.calls for turn in turns):
        return None
    return Episode(turns=tuple(turns))


def find_missing_turns(messages: Sequence[Message], before: Sequence[Message] = ()) -> str:
    """Returns the fault of messages with a result whose call neither they nor those `before` them
    hold; "" if each result has its call.
    """
    called = {call.id for message in (*before, *messages) for call in message.tool_calls}
    results = (m.tool_call_id or "" for m in messages if m.role == "tool")
    orphan = next((result for result in results if result not in called), None)
    if orphan is None:
        return ""
    return f"a result (call {orphan!r}) without its call: turns are missing"


def _record(call: ToolCall, results: dict[str, str], failed: Collection[str]) -> CallRecord:
    status: CallStatus = "ok"
    if call.id not in results:
        status = "missing"
    elif call.id in failed:
        status = "error"
    result_text = results.get(call.id, "")
    is_long = len(result_text) > MAX_RESULT_CHARACTERS
    return CallRecord(
        id=call.id,
        name=call.name,
        arguments=call.arguments,
        status=status,
        result=result_text[:MAX_RESULT_CHARACTERS],
        cut=len(result_text) if is_long else None,
    )
