"""What has passed the rails in a run of the Agents SDK, by digest: answers, results, calls, items.

A run is told by its trace, a conversation of several runs by the group of the trace
(`RunConfig(group_id=...)`): runs share nothing otherwise.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from truing.core.types import Message, ToolCall
from truing.integrations.openai_agents.items import as_mapping, read_call
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.openai_agents", "openai-agents"):
    from agents.tracing import get_current_trace

MAX_REMEMBERED = 10_000
_UNNAMED_TRACES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def current_session() -> str:
    """Returns the session of the run under way, "" outside of any."""
    trace = get_current_trace()
    group = getattr(trace, "group_id", None)
    if group:
        return f"group:{group}"
    trace_id = getattr(trace, "trace_id", "no-op")
    if trace_id != "no-op":
        return f"trace:{trace_id}"
    if trace is None:
        return ""
    try:
        return _UNNAMED_TRACES.setdefault(trace, f"run:{secrets.token_hex(16)}")
    except TypeError:  # a trace that cannot be told from others: nothing is remembered
        return ""


class PassedItems:
    """Digests of what has passed, each in the session of its run; the oldest are forgotten."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def remember_message(self, message: Message) -> None:
        """Remembers the text of an answer, and its calls, each of which may run once."""
        for call in message.tool_calls:
            self._remember("call", call.id, call.name, call.arguments)
        if message.content:
            self._remember("answer", message.content)

    def remember_items(self, items: Iterable[Any]) -> None:
        """Remembers the items of an output, which may go back to the model as they are."""
        for run_item in items:
            row = as_mapping(run_item)
            self._remember("item", _canonical(row))
            kind = row.get("type")
            if kind == "function_call":
                self.remember_message(Message("assistant", "", (read_call(row),)))
            elif kind == "message":
                self._remember("answer", _text_of(run_item))

    def remember_result(self, text: str) -> None:
        """Remembers what a tool, or its refusal, has given to the run."""
        self._remember("result", text)

    def holds_answer(self, text: str) -> bool:
        """Returns whether a text is an answer that has passed in this run."""
        return self._holds("answer", text)

    def holds_result(self, text: str) -> bool:
        """Returns whether a text is the result of a tool in this run."""
        return self._holds("result", text)

    def holds_item(self, row: Mapping[str, Any]) -> bool:
        """Returns whether an item is one that a model has written in this run."""
        return self._holds("item", _canonical(row))

    def take_call(self, call: ToolCall) -> bool:
        """Returns whether a call has passed and did not run yet: what has passed runs once."""
        digest = _digest("call", call.id, call.name, call.arguments)
        if digest is None or digest not in self._digests:
            return False
        del self._digests[digest]
        return True

    def _remember(self, *parts: str) -> None:
        digest = _digest(*parts)
        if digest is None:
            return
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        while len(self._digests) > MAX_REMEMBERED:
            self._digests.popitem(last=False)

    def _holds(self, *parts: str) -> bool:
        return _digest(*parts) in self._digests


def _text_of(item: Any) -> str:
    """Returns the text of a message as the SDK makes an answer of it."""
    return "".join(str(getattr(part, "text", "") or "") for part in item.content)


def _canonical(row: Mapping[str, Any]) -> str:
    values = {key: value for key, value in row.items() if value is not None}
    return json.dumps(values, sort_keys=True, default=str)


def _digest(*parts: str) -> bytes | None:
    """Returns a digest in the session of the run; None without one, where nothing is remembered."""
    session = current_session()
    if not session:
        return None
    text = json.dumps([session, *parts]).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=20).digest()
