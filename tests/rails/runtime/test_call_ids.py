from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import ToolCall
from truing.rails.runtime.call_ids import CallIds
from truing.rails.runtime.chat_messages import ChatMessage


def message_with_ids(call_ids: list[str], result_id: str | None) -> ChatMessage:
    calls = tuple(ToolCall(call_id, "f") for call_id in call_ids)
    return ChatMessage(role="assistant", tool_calls=calls, tool_call_id=result_id)


def ids_of(message: ChatMessage) -> list[Any]:
    return [*(call.id for call in message.tool_calls), message.tool_call_id]


IDS = st.one_of(st.text(max_size=20), st.sampled_from(["call00001", "call00002", "a"]))


@given(rows=st.lists(st.tuples(st.lists(IDS, max_size=3), st.none() | IDS), max_size=6))
def test_equal_ids_stay_equal_different_ones_different_and_no_text_is_left(
    rows: list[tuple[list[str], str | None]],
) -> None:
    ids = CallIds()
    own: dict[Any, Any] = {}
    for call_ids, result_id in rows:
        before = message_with_ids(call_ids, result_id)
        after = ids.rename(before)
        assert ids_of(before) == [*call_ids, result_id]  # the caller's message is untouched
        for client_id, own_id in zip(ids_of(before), ids_of(after), strict=True):
            assert own.setdefault(client_id, own_id) == own_id
            assert own_id in (None, "") or re.fullmatch("[a-z0-9]{9}", own_id)
    named = [own_id for client_id, own_id in own.items() if client_id]
    assert len(set(named)) == len(named)


def test_a_checked_call_gets_its_id_back() -> None:
    ids = CallIds()
    row = ids.rename(message_with_ids(["toolu_1", "x"], None))
    assert [call.id for call in row.tool_calls] == ["call00001", "call00002"]
    assert [call.id for call in ids.restore(row.tool_calls)] == ["toolu_1", "x"]
