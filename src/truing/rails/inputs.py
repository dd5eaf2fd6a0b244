"""What comes in: chat messages as the events of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Event = dict[str, Any]


def events_of(rows: Sequence[dict[str, Any]], start: int, tool_rails: bool) -> Iterator[Event]:
    """The events of the messages from `start` on."""
    last = len(rows) - 1
    for at in range(start, len(rows)):
        row = rows[at]
        role, content = row.get("role"), row.get("content")
        if role == "user":
            yield {"type": "UtteranceUserActionFinished", "final_transcript": content}
            if at != last:
                yield {"type": "UserMessage", "text": content}
        elif role == "assistant":
            if row.get("tool_calls"):
                yield {"type": "BotToolCalls", "tool_calls": row["tool_calls"]}
            else:
                yield {"type": "StartUtteranceBotAction", "script": content}
                yield {"type": "UtteranceBotActionFinished", "final_script": content, "is_success": True}
        elif role == "context":
            yield {"type": "ContextUpdate", "data": dict(content or {})}
        elif role == "event":
            yield row["event"]
        elif role in ("system", "developer"):
            yield {"type": "SystemMessage", "content": content}
        elif role == "tool" and at == last:
            yield from _tool(rows, tool_rails)


def _tool(rows: Sequence[dict[str, Any]], tool_rails: bool) -> Iterator[Event]:
    """Tool results that ask for an answer: through the tool rails where there are any."""
    asked = next((r.get("content") for r in reversed(rows[:-1]) if r.get("role") == "user"), None)
    if not asked:
        return
    if not tool_rails:
        yield {"type": "UserMessage", "text": asked}
        return
    names = {
        c.get("id"): (c.get("function") or {}).get("name")
        for r in rows for c in r.get("tool_calls") or () if isinstance(c, dict)
    }
    found = [
        {
            "content": r.get("content"), "tool_call_id": r.get("tool_call_id", ""),
            "name": r.get("name") or names.get(r.get("tool_call_id")) or "unknown",
        }
        for r in rows if r.get("role") == "tool"
    ]  # fmt: skip
    yield {"type": "UserToolMessages", "tool_messages": found, "user_message": asked}
