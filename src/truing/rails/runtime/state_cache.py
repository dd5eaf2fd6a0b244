"""The states of recent conversations, bounded by the memory that they take."""

from __future__ import annotations

import secrets
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.event_types import Event

MAX_BYTES = 64 * 2**20
MAX_STATES = 512
_STATE_BYTES = 32_768  # of frames, snapshots and dictionaries
_EVENT_BYTES = 200  # of an event, and of its rendered forms without their text
_MAX_DEPTH = 6
# Bytes of an empty dictionary, list and text, of an entry and of an item, beyond what the JSON of a
# value shows of them.
_MAPPING_BYTES, _LIST_BYTES, _TEXT_BYTES, _ENTRY_BYTES, _ITEM_BYTES = 232, 72, 50, 55, 32
_encoder = msgspec.json.Encoder()
# Variables may hold anything, e.g. objects of actions or lone surrogates.
_NO_JSON = (TypeError, ValueError, OverflowError, RecursionError)


def estimate_size(value: Any) -> int:
    """Returns about how many bytes a value of nested containers takes.

    It is measured by its JSON, which one call in C writes: every turn is measured.
    """
    try:
        encoded = _encoder.encode(value)
    except _NO_JSON:
        return _measure_objects(value)
    return _size_of_json(encoded)


def estimate_sizes(values: Sequence[Any]) -> int:
    """Returns about how many bytes values take together."""
    try:
        return _size_of_json(_encoder.encode_lines(values))
    except _NO_JSON:
        return sum(estimate_size(value) + 1 for value in values)


def _size_of_json(encoded: bytes) -> int:
    # One character beyond Latin-1 makes all of a text take two or four bytes each; and its UTF-8.
    text_bytes = len(encoded) if encoded.isascii() else 5 * len(encoded)
    # Within a text, such as the JSON of a tool's result, quotes stand behind a backslash.
    mappings = encoded.count(b'{"') + encoded.count(b"{}")
    texts = (encoded.count(b'"') - encoded.count(b'\\"')) // 2
    entries = encoded.count(b'":') - encoded.count(b'\\":')
    return (
        text_bytes
        + _MAPPING_BYTES * mappings
        + _LIST_BYTES * encoded.count(b"[")
        + _TEXT_BYTES * texts
        + _ENTRY_BYTES * entries
        + _ITEM_BYTES * encoded.count(b",")
    )


def _measure_objects(measured: Any, depth: int = 0) -> int:
    size = sys.getsizeof(measured, 64)
    if isinstance(measured, str) or depth >= _MAX_DEPTH:
        return size
    if isinstance(measured, Event):
        measured = [getattr(measured, name) for name in measured.__struct_fields__]
    if isinstance(measured, Mapping):
        measured = [*measured.keys(), *measured.values()]
    if isinstance(measured, (list, tuple, set, frozenset)):
        return size + sum(_measure_objects(item, depth + 1) for item in measured)
    return size


def state_size(state: ConversationState) -> int:
    """Returns about how many bytes a state takes: its events, their rendering, its variables.

    Events that were measured before, also in the state that this one continues, are not measured
    again: the cost of a turn does not grow with the conversation.
    """
    history = state.history
    if history.measured_events > len(history):  # the last one was taken back
        history.measured_events = history.measured_bytes = 0
    # An event's text stands in the event, in the rendered history and in the chat.
    new_events = history[history.measured_events :]
    history.measured_bytes += _EVENT_BYTES * len(new_events) + 2 * estimate_sizes(new_events)
    history.measured_events = len(history)
    variables = estimate_size({k: v for k, v in state.context.items() if k not in _SHARED})
    return _STATE_BYTES + history.measured_bytes + 2 * variables


_SHARED = ("config", "event")


class StateCache:
    """States by key; the least recently used ones are dropped above the bounds.

    `secret` keys the hashes of conversations, so that no client can compute one.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_states: int = MAX_STATES) -> None:
        self.max_bytes, self.max_states = max_bytes, max_states
        self.secret = secrets.token_bytes(32)
        self.size = 0
        self._states: OrderedDict[bytes, tuple[ConversationState, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, key: object) -> bool:
        return key in self._states

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._states)

    def fork(self, key: bytes) -> ConversationState | None:
        """Returns a copy of the state under a key, or None."""
        entry = self._states.get(key)
        if entry is None:
            return None
        self._states.move_to_end(key)
        return entry[0].fork()

    def put(self, key: bytes, state: ConversationState) -> None:
        """Stores a state, unless it alone is above the bound, and drops old ones."""
        previous = self._states.pop(key, None)
        if previous is not None:
            self.size -= previous[1]
        size = state_size(state)
        if size > self.max_bytes:
            return
        self._states[key] = (state, size)
        self.size += size
        while self.size > self.max_bytes or len(self._states) > self.max_states:
            _, (_, dropped) = self._states.popitem(last=False)
            self.size -= dropped
