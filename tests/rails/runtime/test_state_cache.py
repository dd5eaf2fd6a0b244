"""The cache of conversation states is bounded by bytes and by number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from dialog_turns import ReplyListModel, make_runtime

from truing.rails.runtime import state_cache
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.event_types import UserMessage
from truing.rails.runtime.state_cache import (
    StateCache,
    estimate_size,
    estimate_sizes,
    state_size,
)


def make_state(text: str) -> ConversationState:
    runtime = make_runtime(ReplyListModel())
    state = ConversationState(runtime.program, runtime.config)
    state.add(UserMessage(text))
    return state


def test_a_state_is_not_smaller_than_its_texts() -> None:
    assert state_size(make_state("x" * 50_000)) > 2 * 50_000
    assert estimate_size({"a": ["x" * 1000] * 3}) > 3000


class Opaque:
    """What an action may put into a variable: it has no JSON."""


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000,
        "\N{GRINNING FACE}" + "x" * 10_000,  # four bytes for each character
        [[] for _ in range(1_000)],
        [{} for _ in range(1_000)],
        [[number, number] for number in range(1_000)],
        {str(number): {"a": 0} for number in range(1_000)},
        {str(number): str(-number) for number in range(1_000)},
        {f"\\{number}": number / 3 for number in range(1_000)},
        [str(number) for number in range(1_000)],
        [number / 2 for number in range(1_000)],
        {"objects": [Opaque(), "y" * 10_000], "keys": {Opaque(): "z" * 10_000}},
        {"surrogate": "\ud800" + "x" * 10_000},
    ],
    ids=range(12),
)
def test_no_value_is_estimated_below_what_it_takes(value: Any) -> None:
    assert estimate_size(value) >= 0.9 * true_size(value)
    assert estimate_sizes([value]) >= 0.9 * true_size(value)


def test_the_json_of_a_tools_result_is_not_taken_for_containers() -> None:
    text = '{"name": "a", "rows": [1, 2]}, ' * 1_000
    assert estimate_size(text) <= 8 * true_size(text)


def true_size(value: Any) -> int:
    """Returns the bytes of a value of containers, each object once."""
    sizes: dict[int, int] = {}
    pending = [value]
    while pending:
        item = pending.pop()
        if id(item) in sizes:
            continue
        sizes[id(item)] = sys.getsizeof(item)
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
    return sum(sizes.values())


def test_each_event_of_a_conversation_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    state = make_state("turn 0")
    cache = StateCache()
    cache.put(b"0", state)

    def count(values: Sequence[Any]) -> int:
        measured.extend(value.text for value in values if isinstance(value, UserMessage))
        return estimate_sizes(values)

    for number in range(1, 20):
        fork = cache.fork(str(number - 1).encode())
        assert fork is not None
        fork.add(UserMessage(f"turn {number}"))
        with monkeypatch.context() as patch:
            patch.setattr(state_cache, "estimate_sizes", count)
            cache.put(str(number).encode(), fork)
        state = fork
    assert measured == [f"turn {number}" for number in range(1, 20)]
    measured_at_once = ConversationState(state.program, state.interpreter.config)
    for event in state.history:
        measured_at_once.add(event)
    assert state_size(state) == state_size(measured_at_once)


@pytest.mark.parametrize("length", [10, 100_000])
def test_old_states_go_where_the_bytes_end(length: int) -> None:
    size = state_size(make_state("x" * length))
    cache = StateCache(max_bytes=3 * size)
    keys = [bytes([number]) for number in range(5)]
    for key in keys:
        cache.put(key, make_state("x" * length))
    assert list(cache) == keys[2:]
    assert cache.size == 3 * size


def test_a_state_above_the_bound_is_not_kept() -> None:
    cache = StateCache(max_bytes=100_000)
    cache.put(b"small", make_state("x"))
    cache.put(b"large", make_state("x" * 100_000))
    assert list(cache) == [b"small"]
    assert cache.fork(b"large") is None


def test_a_fork_leaves_the_cached_state_as_it_is() -> None:
    cache = StateCache()
    cache.put(b"k", make_state("hello"))
    fork = cache.fork(b"k")
    assert fork is not None
    fork.add(UserMessage("more"))
    again = cache.fork(b"k")
    assert again is not None and len(again.history) == 1
